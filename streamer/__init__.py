"""Read a LArPix raw HDF5 file, also while it is being written."""
