from automl_pt import hookimpl


@hookimpl
def epoch_finished(event):
    print("epoch_finished:", event.run.name, event.epoch, event.figures["val_loss"])
