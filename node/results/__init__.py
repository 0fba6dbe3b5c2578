"""Exam and findings become DICOM objects; a file per kind of object."""
