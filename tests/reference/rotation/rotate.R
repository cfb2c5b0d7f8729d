# Loadings rotated by R's own functions: Rscript rotate.R, in this directory. Made with R's package stats alone.
L <- as.matrix(read.csv("loadings.csv", header = FALSE))
save <- function(loadings, file) write.table(unclass(loadings), file, sep = ",", row.names = FALSE, col.names = FALSE)
save(varimax(L, normalize = TRUE, eps = 1e-14)$loadings, "varimax_kaiser.csv")
save(varimax(L, normalize = FALSE, eps = 1e-14)$loadings, "varimax_raw.csv")
save(promax(L, m = 4)$loadings, "promax.csv")
writeLines(R.version.string, "R_version.txt")
