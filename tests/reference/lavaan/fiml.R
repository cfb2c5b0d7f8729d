# Fit the reference models with lavaan (full-information maximum likelihood) and write one text file for each.
# Run as "Rscript fiml.R [name ...]" in this directory, after make_data.py; without names, all of them.

suppressMessages(library(lavaan))

FITS <- c("flat_mcar", "flat_structured", "bifactor_mcar", "bifactor_structured",
          "regression_complete", "regression_mcar")
CONTROL <- list(rel.tol = 1e-10, iter.max = 20000, eval.max = 20000)
RANDOM <- 6

groups <- read.csv("groups.csv")
items <- groups$feature
abilities <- unique(groups$ability)

measured <- function(factor, features) paste(factor, "=~", paste(features, collapse = " + "))

syntax <- function(model) {
  lines <- measured("global", items)
  if (model != "flat") {
    lines <- c(lines, sapply(abilities, function(a) measured(a, items[groups$ability == a])))
  }
  if (model == "regression") lines <- c(lines, paste(items, "~ x1 + x2"))
  paste(lines, collapse = "\n")
}

# Nothing is free that is not named here: loadings and regressions of the syntax, residual variances, intercepts.
# With more than one attempt, lavaan goes back to its own start values where an optimiser gives up.
fit <- function(model, data, ...) {
  lavaan(syntax(model), data = data, missing = "fiml", fixed.x = TRUE, conditional.x = FALSE, meanstructure = TRUE,
         std.lv = TRUE, orthogonal = TRUE, auto.fix.first = FALSE, auto.var = TRUE, int.ov.free = TRUE,
         int.lv.free = FALSE, auto.cov.lv.x = FALSE, auto.cov.y = FALSE, test = "none", baseline = FALSE, h1 = FALSE,
         optim.attempts = 1, ...)
}

gradient <- function(f) as.numeric(lavInspect(f, "gradient"))  # of lavaan's objective, -loglik / nobs + constant
largest <- function(f) max(abs(gradient(f)))
loglik <- function(f) as.numeric(suppressWarnings(logLik(f)))
variances <- function(f) with(parTable(f), est[op == "~~" & lhs == rhs & lhs %in% items])
with_estimates <- function(f, theta) {
  table <- parTable(f)
  table$est[table$free > 0] <- theta
  table
}

# Loadings drawn at random; the other start values are lavaan's.
random_start <- function(f, seed) {
  set.seed(seed)
  table <- parTable(f)
  loadings <- table$op == "=~"
  table$est <- table$start
  table$est[loadings] <- rnorm(sum(loadings), sd = 0.5)
  table$est[loadings & table$lhs == "global"] <- abs(table$est[loadings & table$lhs == "global"])
  table
}

# Newton steps by lavaan's own gradient and observed information (both a person), while the gradient gets smaller.
polish <- function(model, data, f) {
  for (step in 1:5) {
    theta <- coef(f) - solve(lavInspect(f, "information.observed"), gradient(f))
    closer <- fit(model, data, start = with_estimates(f, theta), optim.method = "none", se = "none")
    if (largest(closer) >= largest(f)) break
    f <- closer
  }
  f
}

number <- function(x) sprintf("%.16g", x)

run <- function(name) {
  parts <- strsplit(name, "_")[[1]]
  model <- parts[1]
  data <- read.csv(gzfile(paste0(parts[2], ".csv.gz")))
  if (model == "regression") data <- cbind(data, read.csv(gzfile("covariates.csv.gz")))

  one <- function(...) suppressWarnings(fit(model, data, se = "none", ...))
  tries <- list(
    default_nlminb = one(control = CONTROL),
    Mplus_BFGS = one(start = "Mplus", optim.method = "BFGS", control = list(reltol = 1e-14, maxit = 20000)))
  # With covariates it would also set their moments free.
  if (model != "regression") tries$simple_nlminb <- one(start = "simple", control = CONTROL)
  for (seed in seq_len(RANDOM)) {
    tries[[paste0("random", seed, "_nlminb")]] <- one(start = random_start(tries[[1]], seed), control = CONTROL)
  }
  logliks <- sapply(tries, loglik)
  smallest <- sapply(tries, function(f) min(variances(f)))
  best <- which.max(ifelse(smallest > 0, logliks, -Inf))

  polished <- polish(model, data, tries[[best]])
  final <- list()
  for (information in c("expected", "observed")) {
    final[[information]] <- fit(model, data, start = polished, control = CONTROL, se = "standard",
                                information = information, observed.information = "hessian",
                                h1.information = "structured")
  }
  f <- final$expected
  stopifnot(sapply(final, lavInspect, "converged"), min(variances(f)) > 0,
            identical(coef(f), coef(final$observed)))

  table <- parTable(f)
  keep <- table$free > 0
  loads <- table$op == "=~"
  feature <- ifelse(loads, table$rhs, table$lhs)
  kind <- c("=~" = "loading", "~~" = "uniqueness", "~1" = "intercept", "~" = "coefficient")[table$op]
  term <- ifelse(loads, table$lhs, ifelse(table$op == "~", table$rhs, "-"))
  values <- data.frame(kind, feature, term, estimate = number(table$est), se_expected = number(table$se),
                       se_observed = number(parTable(final$observed)$se))[keep, ]

  out <- file(paste0(name, ".txt"), "w")
  say <- function(key, ...) cat(key, " ", ..., "\n", sep = "", file = out)
  say("model", model)
  say("data", parts[2])
  say("R", as.character(getRversion()))
  say("lavaan", as.character(packageVersion("lavaan")))
  say("loglik", sprintf("%.10f", loglik(f)))
  say("npar", lavInspect(f, "npar"))
  say("nobs", lavInspect(f, "nobs"))
  say("converged", all(sapply(final, lavInspect, "converged")))
  say("gradient", sprintf("%.3e", largest(f)))
  say("smallest_uniqueness", number(min(variances(f))))
  for (i in seq_along(tries)) {
    say(paste0("try_", names(tries)[i]), sprintf("%.10f", logliks[i]))
    say(paste0("try_", names(tries)[i], "_converged"), lavInspect(tries[[i]], "converged"))
    say(paste0("try_", names(tries)[i], "_smallest_uniqueness"), sprintf("%.6f", smallest[i]))
  }
  cat("\n", file = out)
  write.table(values, out, quote = FALSE, row.names = FALSE)
  close(out)
  cat(name, ": loglik ", sprintf("%.10f", loglik(f)), ", npar ", lavInspect(f, "npar"), ", gradient ",
      sprintf("%.1e", largest(f)), "\n", sep = "")
}

cat(R.version.string, ", lavaan ", as.character(packageVersion("lavaan")), "\n", sep = "")
named <- commandArgs(trailingOnly = TRUE)
for (name in if (length(named)) named else FITS) run(name)
