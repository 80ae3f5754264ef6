"""The MONAI Label app: the only package that imports monailabel."""
