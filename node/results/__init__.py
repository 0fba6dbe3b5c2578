"""A reading as DICOM objects, one file for each kind of object."""
