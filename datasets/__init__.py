"""The data files of mlfm.datasets; installed as the package mlfm._data."""
