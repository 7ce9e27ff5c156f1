"""The assessment as a block of diffusers' modular pipelines: an image goes in, `prompt` and `negative_prompt` come out.

    blocks.sub_blocks.insert("quality", QualityPromptStep(), 0)

The block stands before the text encoder. It must not know any pipeline.
"""

from __future__ import annotations

from typing import Any

from diffusers.modular_pipelines import InputParam, ModularPipelineBlocks, OutputParam

from restore_bridge.pipelines import encoder_of, prompts_for
from zoomiqa.assessors import Assessor, create_assessor
from zoomiqa.errors import OptionInvalid


class QualityPromptStep(ModularPipelineBlocks):  # type: ignore[misc, unused-ignore]
    """Writes what an assessor finds wrong with `image` into the prompts that later blocks encode.

    Args:
        assessor: Who judges, or its name; the embedded default without it.
        encoder: Name of a budget in `restore_bridge.prompts.BUDGETS`; what the pipeline's tokenizers suggest without
            it.
    """

    def __init__(self, assessor: Assessor | str | None = None, encoder: str | None = None) -> None:
        super().__init__()
        self._assessor = create_assessor(assessor) if assessor is None or isinstance(assessor, str) else assessor
        self._encoder = encoder

    @property
    def description(self) -> str:
        return "Assesses the image and says in the prompts what to improve and what to avoid"

    @property
    def inputs(self) -> list[InputParam]:
        words = "comes first and is never dropped"
        return [
            InputParam("image", required=True, description="the photograph: a PIL image or an array"),
            InputParam("prompt", description=f"your own words on the wanted picture; {words}"),
            InputParam("negative_prompt", description=f"your own words on what to avoid; {words}"),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [
            OutputParam("prompt", type_hint=str, description="what the picture should become"),
            OutputParam("negative_prompt", type_hint=str, description="what it should lose"),
            OutputParam("quality_assessment", description="the `zoomiqa.Assessment` behind the words"),
        ]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """One image of a call; several are refused, as one prompt cannot speak of all of them."""
        block_state = self.get_block_state(state)
        image = block_state.image
        if isinstance(image, list | tuple):
            if len(image) != 1:
                count = f"{len(image)} images"
                raise OptionInvalid("the block writes the prompt of one image", count, "call the pipeline for each")
            image = image[0]
        found = prompts_for(
            image,
            components,
            assessor=self._assessor,
            encoder=self._encoder or encoder_of(components),
            prompt=block_state.prompt,
            negative=block_state.negative_prompt,
        )
        block_state.prompt = found.prompts.positive
        block_state.negative_prompt = found.prompts.negative
        block_state.quality_assessment = found.assessment
        self.set_block_state(state, block_state)
        return components, state
