"""The cells that the NVISA slides publish, with their marks. Accuracy in per cent on each data set.

Source: slides of IJCNN 2020, "Overall Performance" and "Ablation Study".
"""

__all__ = ["ABLATION", "DATASETS", "TABLE", "WITH_AE_GMM_INIT"]

DATASETS = ("mnist", "fashion_mnist", "stl10", "cifar10", "cifar100")

# A star: quoted by the authors from the method's own paper. A dash: no published result and no code.
TABLE = {
    "AE+GMM": ("84.27", "53.83", "76.18", "43.66", "29.41"),
    "VAE+GMM": ("76.87", "53.43", "82.42", "59.4", "30.81"),
    "DEC": ("84.30*", "57.58", "84.08", "70.31", "31.22"),
    "GM-GAN": ("99.24*", "58.16*", "-", "-", "-"),
    "GMVAE": ("88.54*", "50.15", "65.72", "49.79", "14.46"),
    "VaDE": ("94.46*", "56.12", "84.45*", "59.69", "23.58"),
    "LTVAE-GMM": ("86.31", "55.69", "81.66", "63.51", "16.98"),
    "LTVAE-full": ("86.32*", "61.32", "90.00*", "69.16", "38.52"),
    "NVISA(best)": ("98.40", "66.14", "91.22", "76.96", "38.79"),
    "NVISA(avg±std)": ("96.55±2.64", "62.63±2.92", "89.15±2.36", "71.37±2.79", "37.32±0.70"),
}
WITH_AE_GMM_INIT = "98.04±0.17"

# (inference, method, accuracy on MNIST); a star in the method: std annealing; N/A: the loss diverges.
ABLATION = (
    ("-", "GMVAE", "88.54"),
    ("-", "VaDE", "94.46"),
    ("EnumY", "NVISA (Bernoulli)", "95.12"),
    ("EnumY", "NVISA", "78.43"),
    ("EnumY", "NVISA*", "93.81"),
    ("NVIL", "NVISA", "N/A"),
    ("NVIL", "NVISA*", "N/A"),
    ("VIMCO", "NVISA", "N/A"),
    ("VIMCO", "NVISA (Bernoulli)", "95.74"),
    ("VIMCO", "NVISA (1000 samples)", "71.42"),
    ("VIMCO", "NVISA*(1000 samples)", "91.3"),
    ("VIMCO", "NVISA* (mean-field)", "95.25"),
    ("VIMCO", "NVISA*", "98.40"),
)
