from automl_pt import hookimpl


@hookimpl
def trial_finished(event):
    print("trial_finished:", event.run.trial, event.state, event.value)
