"""`automl-pt fetch`."""

from __future__ import annotations

import click

from automl_pt.cli.lookup import plugin_option


@click.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@plugin_option
def command(names: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Download the pretrained weights of backbones.

    NAME is one of `automl-pt backbones --pretrained`. torchvision's weights go into torch.hub's cache (TORCH_HOME),
    timm's into that of the Hugging Face hub (HF_HOME); a plugin's weights into the plugin's own place. Afterwards
    no command needs a network for them. Existing weights are not downloaded again.
    """
    from automl_pt.plugins.manager import load_plugins
    from automl_pt.runs.start import bring

    loaded = load_plugins(plugins)
    backbones = [loaded.backbone(name) for name in names]
    for backbone in backbones:
        for line in bring(backbone):
            click.echo(line)
