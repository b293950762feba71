"""The stages of a run and their order: the only place that joins the core, the agents and the environments."""
