# Fit flat models of "abilities" with R's factanal, and write one text file for each number of factors.
# Run as "Rscript factanal.R" in this directory.

FACTORS <- c(2, 4)

number <- function(x) sprintf("%.17g", x)

endog <- as.matrix(read.csv(gzfile("../lavaan/complete.csv.gz")))
n <- nrow(endog)
p <- ncol(endog)
S <- cov(endog) * (n - 1) / n

run <- function(factors) {
  fit <- factanal(endog, factors = factors, rotation = "none",
                  control = list(lower = 1e-4, opt = list(factr = 0, pgtol = 0, maxit = 10000)))
  stopifnot(fit$converged, min(fit$uniquenesses) > 0.01)
  objective <- fit$criteria[["objective"]]
  loadings <- unclass(fit$loadings)
  implied <- tcrossprod(loadings) + diag(fit$uniquenesses)
  # The objective from its definition, as a check: log|implied| + tr(implied^-1 R) - log|R| - p.
  direct <- as.numeric(determinant(implied)$modulus) + sum(diag(solve(implied, fit$correlation))) -
    as.numeric(determinant(fit$correlation)$modulus) - p
  bartlett <- n - 1 - (2 * p + 5) / 6 - 2 * factors / 3
  stopifnot(abs(direct - objective) < 1e-12, abs(fit$STATISTIC - bartlett * objective) < 1e-10)
  unrestricted <- -n / 2 * (p * log(2 * pi) + as.numeric(determinant(S)$modulus) + p)
  gradient <- diag(implied - fit$correlation) / fit$uniquenesses^2  # of the objective, by the uniquenesses

  out <- file(paste0("factanal_", factors, ".txt"), "w")
  say <- function(key, ...) cat(key, " ", ..., "\n", sep = "", file = out)
  say("R", as.character(getRversion()))
  say("factors", factors)
  say("nobs", n)
  say("features", p)
  say("gradient", sprintf("%.3e", max(abs(gradient))))
  say("objective", number(objective))
  say("loglik", number(unrestricted - n / 2 * objective))
  say("unrestricted_loglik", number(unrestricted))
  say("dof", fit$dof)
  say("bartlett_factor", number(bartlett))
  say("statistic", number(fit$STATISTIC))
  say("pvalue", number(fit$PVAL))
  cat("\n", file = out)
  table <- data.frame(feature = colnames(endog), uniqueness = number(fit$uniquenesses), apply(loadings, 2, number))
  write.table(table, out, quote = FALSE, row.names = FALSE)
  close(out)
  cat(factors, " factors: objective ", number(objective), ", statistic ", number(fit$STATISTIC), ", gradient ",
      sprintf("%.1e", max(abs(gradient))), "\n", sep = "")
}

cat(R.version.string, "\n")
for (factors in FACTORS) run(factors)
