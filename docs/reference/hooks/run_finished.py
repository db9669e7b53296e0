from automl_pt import hookimpl


@hookimpl
def run_finished(event):
    print("run_finished:", event.run.name, event.reason, event.epochs)
