# Fit the reference models of complete data with lavaan, and write one text file for each.
# Run as "Rscript lavaan.R [name ...]" in this directory, after make_data.py; without names, all of them.

suppressMessages(library(lavaan))

DATA <- c(bifactor = "../lavaan/complete.csv.gz", personality = "personality.csv.gz")
GROUPS <- c(bifactor = "../lavaan/groups.csv", personality = "personality_groups.csv")
# The features whose communality is a defined parameter.
COMMUNALITIES <- list(bifactor = c("t20_deduction", "t14_wordrecg", "t09_wordmean"), personality = c())
CONTROL <- list(rel.tol = 1e-10, iter.max = 20000, eval.max = 20000)
RANDOM <- 6

OPTIONS <- list(
  expected = list(se = "standard", information = "expected"),
  observed = list(se = "standard", information = "observed"),
  robust = list(se = "robust.huber.white", information = "observed", information.meat = "first.order"),
  opg = list(se = "standard", information = "first.order"))

label <- function(level, feature) paste0(level, "_", feature)

# Every loading and every residual variance has a label, level_feature, so that parameters can be defined from them.
syntax <- function(groups, communalities) {
  levels <- names(groups)[-1]
  lines <- c()
  for (level in levels) {
    for (group in unique(groups[[level]])) {
      own <- groups$feature[groups[[level]] == group]
      lines <- c(lines, paste(group, "=~", paste0(label(level, own), "*", own, collapse = " + ")))
    }
  }
  lines <- c(lines, paste0(groups$feature, " ~~ ", label("unique", groups$feature), "*", groups$feature))
  if (length(communalities)) {
    explained <- function(feature) paste0(label(levels, feature), "^2", collapse = " + ")
    variance <- function(feature) paste0("(", explained(feature), " + ", label("unique", feature), ")")
    part <- function(level, feature) {
      paste0(label(level, feature), if (level == "unique") "" else "^2")
    }
    for (feature in communalities) {
      lines <- c(lines, paste0(label("communality", feature), " := (", explained(feature), ") / ", variance(feature)))
    }
    all_features <- groups$feature
    total <- paste(sapply(all_features, variance), collapse = " + ")
    for (level in c(levels, "unique")) {
      own <- paste(part(level, all_features), collapse = " + ")
      shares <- paste0(part(level, all_features), " / ", sapply(all_features, variance), collapse = " + ")
      lines <- c(lines, paste0(label("share", level), " := (", own, ") / (", total, ")"),
                 paste0(label("mean_share", level), " := (", shares, ") / ", length(all_features)))
    }
  }
  paste(lines, collapse = "\n")
}

gradient <- function(f) as.numeric(lavInspect(f, "gradient"))  # of lavaan's objective, -loglik / nobs + constant
largest <- function(f) max(abs(gradient(f)))
loglik <- function(f) as.numeric(suppressWarnings(logLik(f)))
variances <- function(f) with(parTable(f), est[op == "~~" & lhs == rhs & free > 0])
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
  global <- loadings & table$lhs == "global"
  table$est[global] <- abs(table$est[global])
  table
}

# Every factor's loadings with a positive sum.
upright <- function(f) {
  table <- parTable(f)
  for (factor in unique(table$lhs[table$op == "=~"])) {
    own <- table$op == "=~" & table$lhs == factor
    if (sum(table$est[own]) < 0) table$est[own] <- -table$est[own]
  }
  table
}

number <- function(x) sprintf("%.17g", x)

# In lavaan's fitMeasures p-values are one less a probability, and the ends of the interval come from uniroot with its
# default tolerance. Here the upper tail itself, and a root to the last digits.
tight <- function(fits, level = 0.9) {
  chisq <- fits[["chisq"]]
  df <- fits[["df"]]
  nobs <- fits[["ntotal"]]
  end <- function(probability) {
    excess <- function(ncp) pchisq(chisq, df = df, ncp = ncp) - probability
    if (excess(0) < 0) return(0)
    sqrt(uniroot(excess, c(0, 4 * chisq), tol = 1e-12, maxiter = 10000)$root / (nobs * df))
  }
  c(pvalue.tight = pchisq(chisq, df, lower.tail = FALSE),
    baseline.pvalue.tight = pchisq(fits[["baseline.chisq"]], fits[["baseline.df"]], lower.tail = FALSE),
    rmsea.ci.lower.tight = end((1 + level) / 2),
    rmsea.ci.upper.tight = end((1 - level) / 2),
    rmsea.pvalue.tight = pchisq(chisq, df, ncp = nobs * df * 0.05^2, lower.tail = FALSE))
}

run <- function(name) {
  data <- read.csv(gzfile(DATA[name]))
  groups <- read.csv(GROUPS[name])
  groups <- cbind(groups["feature"], global = "global", groups[-1])
  model <- syntax(groups, COMMUNALITIES[[name]])
  fit <- function(...) {
    cfa(model, data = data, estimator = "ML", likelihood = "normal", meanstructure = TRUE, orthogonal = TRUE,
        std.lv = TRUE, ...)
  }
  one <- function(...) {
    suppressWarnings(fit(se = "none", test = "none", baseline = FALSE, h1 = FALSE, optim.attempts = 1, ...))
  }

  tries <- list(
    default_nlminb = one(control = CONTROL),
    Mplus_BFGS = one(start = "Mplus", optim.method = "BFGS", control = list(reltol = 1e-14, maxit = 20000)),
    simple_nlminb = one(start = "simple", control = CONTROL))
  for (seed in seq_len(RANDOM)) {
    tries[[paste0("random", seed, "_nlminb")]] <- one(start = random_start(tries[[1]], seed), control = CONTROL)
  }
  logliks <- sapply(tries, loglik)
  smallest <- sapply(tries, function(f) min(variances(f)))
  best <- which.max(ifelse(smallest > 0, logliks, -Inf))

  # Newton steps by lavaan's own gradient and observed information (both a person), while the gradient gets smaller.
  polished <- one(start = upright(tries[[best]]), optim.method = "none")
  for (step in 1:5) {
    theta <- coef(polished) - solve(lavInspect(polished, "information.observed"), gradient(polished))
    closer <- one(start = with_estimates(polished, theta), optim.method = "none")
    if (largest(closer) >= largest(polished)) break
    polished <- closer
  }

  final <- lapply(OPTIONS, function(options) {
    do.call(fit, c(list(start = with_estimates(polished, coef(polished)), control = CONTROL, optim.attempts = 1,
                        observed.information = "hessian", h1.information = "structured",
                        h1.information.meat = "structured"), options))
  })
  f <- final$expected
  stopifnot(sapply(final, lavInspect, "converged"), min(variances(f)) > 0,
            sapply(final, function(other) identical(coef(f), coef(other))), identical(coef(f), coef(polished)))

  # What the sandwich is, from its parts: H the Hessian, the scores casewise.
  inverse <- solve(lavInspect(final$observed, "information.observed"))
  scores <- lavScores(f)
  nobs <- lavInspect(f, "nobs")
  sandwich <- inverse %*% (crossprod(scores) / nobs) %*% inverse / nobs
  opg <- solve(crossprod(scores))
  off <- function(kind, vcov) {
    se <- sqrt(diag(vcov))
    max(abs(vcov - lavInspect(final[[kind]], "vcov")) / tcrossprod(se))
  }
  stopifnot(off("robust", sandwich) < 1e-9, off("opg", opg) < 1e-9)

  table <- parTable(f)
  loads <- table$op == "=~"
  defined <- table$op == ":="
  errors <- sapply(final, function(other) parTable(other)$se)
  colnames(errors) <- paste0("se_", names(final))
  standardized <- lapply(final, standardizedSolution, ci = FALSE, zstat = FALSE, pvalue = FALSE)
  stopifnot(standardized$expected$op == table$op, standardized$expected$lhs == table$lhs,
            standardized$expected$rhs == table$rhs)
  errors_standardized <- sapply(standardized, function(other) other$se)
  colnames(errors_standardized) <- colnames(errors)

  feature <- ifelse(loads, table$rhs, table$lhs)
  level <- rep("-", nrow(table))
  for (column in names(groups)[-1]) level[loads & table$lhs %in% groups[[column]]] <- column
  group <- ifelse(loads, table$lhs, "-")
  kind <- c("=~" = "loading", "~~" = "uniqueness", "~1" = "mean", ":=" = "defined")[table$op]
  values <- function(kind, estimate, errors, rows) {
    data.frame(kind, feature, level, group, estimate = number(estimate), apply(errors, 2, number))[rows, ]
  }
  free <- table$free > 0
  rows <- rbind(
    values(kind, table$est, errors, free | defined),
    values(paste0("standardized_", kind), standardized$expected$est.std, errors_standardized,
           free & kind %in% c("loading", "uniqueness")))

  fits <- unclass(fitMeasures(f))
  fits <- c(fits, tight(fits))

  out <- file(paste0(name, ".txt"), "w")
  say <- function(key, ...) cat(key, " ", ..., "\n", sep = "", file = out)
  say("model", name)
  say("R", as.character(getRversion()))
  say("lavaan", as.character(packageVersion("lavaan")))
  say("loglik", number(loglik(f)))
  say("npar", lavInspect(f, "npar"))
  say("nobs", nobs)
  say("gradient", sprintf("%.3e", largest(f)))
  say("smallest_uniqueness", number(min(variances(f))))
  say("smallest_eigenvalue_observed", number(min(eigen(nobs * lavInspect(f, "information.observed"))$values)))
  for (i in seq_along(tries)) {
    say(paste0("try_", names(tries)[i]), sprintf("%.10f", logliks[i]))
    say(paste0("try_", names(tries)[i], "_converged"), lavInspect(tries[[i]], "converged"))
    say(paste0("try_", names(tries)[i], "_smallest_uniqueness"), sprintf("%.6f", smallest[i]))
  }
  for (key in names(fits)) say(paste0("fit_", key), number(fits[[key]]))
  cat("\n", file = out)
  write.table(rows, out, quote = FALSE, row.names = FALSE)
  close(out)
  cat(name, ": loglik ", sprintf("%.10f", loglik(f)), ", npar ", lavInspect(f, "npar"), ", gradient ",
      sprintf("%.1e", largest(f)), ", sandwich off by ", sprintf("%.1e", off("robust", sandwich)), ", opg by ",
      sprintf("%.1e", off("opg", opg)), "\n", sep = "")

  # What estimator = "MLR" gives by itself.
  mlr <- cfa(model, data = data, estimator = "MLR", meanstructure = TRUE, orthogonal = TRUE, std.lv = TRUE,
             start = with_estimates(polished, coef(polished)), control = CONTROL)
  ratio <- (parTable(mlr)$se / errors[, "se_robust"])[free]
  cat("  standard errors of MLR, over those of robust: ", paste(number(range(ratio)), collapse = " to "),
      "; information ", lavInspect(mlr, "options")$information[1], "\n", sep = "")
}

cat(R.version.string, ", lavaan ", as.character(packageVersion("lavaan")), "\n", sep = "")
named <- commandArgs(trailingOnly = TRUE)
for (name in if (length(named)) named else names(DATA)) run(name)
