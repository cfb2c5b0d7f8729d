"""Warnings of mlfm, each with a class of its own so that each can be filtered on its own."""


class MlfmWarning(UserWarning):
    """Base class of all warnings that mlfm gives."""


class ConvergenceWarning(MlfmWarning):
    """A fit stopped before it met its criterion."""


class UniquenessFloorWarning(MlfmWarning):
    """Some uniquenesses ended on their floor (Heywood cases)."""


class IdentificationWarning(MlfmWarning):
    """The data cannot tell some group's factors apart from other parts of the model."""


class DroppedObservationsWarning(MlfmWarning):
    """Observations with missing values were left out, as asked with ``missing="drop"``."""


class ConditionWarning(MlfmWarning):
    """A covariance is so close to singular that a result has lost many of its digits."""
