"""The record as files: which rows and columns (`reading`), onto a disk so that a killed export goes on (`files`), on a
command line (`manage.py export_interactions`) or as a job of somebody in the admin (`jobs`)."""
