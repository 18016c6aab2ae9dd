"""nvisa: deep clustering with Gaussian-mixture VAEs, behind scikit-learn's surface."""
