"""The model that a replica serves: found, checked, loaded, warmed up."""
