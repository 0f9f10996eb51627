"""One module per stage of the pipeline: `run(context, config) -> metrics`."""
