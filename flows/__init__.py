"""The rim: Prefect flows, the command line and the plug-in that joins them."""
