"""Make a LArPix raw HDF5 file. Lives inside data-taking processes: loads h5py and numpy only."""

__version__ = "0.1.0"
