from automl_pt import hookimpl


@hookimpl
def study_finished(event):
    print("study_finished:", event.study, event.best_trial, event.stopped)
