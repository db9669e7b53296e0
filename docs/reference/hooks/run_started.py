from automl_pt import hookimpl


@hookimpl
def run_started(event):
    print("run_started:", event.run.name, event.settings["lr"])
