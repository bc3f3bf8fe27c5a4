"""Tiny networks with random weights, made from their real configuration classes and saved as real checkpoints are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from data.episode import Frame
from extract.effector import Camera
from extract.steps import Shot

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def make_shot(count: int, height: int, width: int, seed: int = 0, depth: bool = False) -> Shot:
    """Smooth coloured pictures with a bright block that wanders to the right; its depth 0.5 m, behind it 1 m."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 90, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = []
    for index in range(count):
        image, metres = base[:height, :width].copy(), np.ones((height, width), np.float32)
        rows, columns = block(index, height, width)
        image[rows, columns], metres[rows, columns] = (230, 160, 120), 0.5
        frames.append(Frame(index, index / 30, image, metres if depth else None))
    k = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], float)
    return Shot(frames, Camera(k, (width, height), "given"))


def block(index: int, height: int, width: int) -> tuple[slice, slice]:
    """Where the block of ``make_shot`` is."""
    left = width // 8 + index
    return slice(height // 4, height // 4 + height // 3), slice(left, left + width // 3)


def tiny_grounding_dino(folder: Path) -> Path:
    """Grounding DINO with a BERT tokeniser of a few words; full stops have the ids that the network looks for."""
    import torch
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessorPil,
        SwinConfig,
    )

    torch.manual_seed(0)
    words = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    words |= {1030: "robot", 1031: "grip", 1032: "##per", 1033: "hand", 1034: "a"}
    folder.mkdir()
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words.get(index, f"[unused{index}]") for index in range(1035)) + "\n")
    BertTokenizer(vocab=str(vocabulary)).save_pretrained(folder)
    swin = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage2", "stage3", "stage4"],  # pyright: ignore
    )  # fmt: skip
    bert = BertConfig(
        vocab_size=1035, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=swin, text_config=bert, d_model=32, num_queries=12, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_n_points=2, decoder_n_points=2, disable_custom_kernels=True,
    )  # fmt: skip
    model = GroundingDinoForObjectDetection(config)
    with torch.no_grad():  # random weights give each query nearly one and the same box and score: spread them
        model.model.query_position_embeddings.weight.normal_(0, 2)
        for layer in model.bbox_embed:
            for parameter in layer.parameters():
                parameter.normal_(0, 0.7)
    model.save_pretrained(folder)
    GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


def rewrite_json(path: Path, **values: object) -> None:
    """Changes values in a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def tiny_sam2(folder: Path) -> Path:
    """SAM 2's video model for 64 x 64 pixels, with the files of image processing that the hub's checkpoints have."""
    import torch
    from transformers import Sam2VideoConfig, Sam2VideoModel

    torch.manual_seed(0)
    vision = {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model", "image_size": [64, 64], "hidden_size": 8,
            "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 2, 2, 2],
            "global_attention_blocks": [3], "window_positional_embedding_background_size": [4, 4],
        },
        "backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 128,
    }  # fmt: skip
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": 64, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
        },
        image_size=64, memory_attention_hidden_size=128, memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32, memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128, memory_encoder_output_channels=64, mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32, memory_fuser_num_layers=1,
    )  # fmt: skip
    model = Sam2VideoModel(config)
    model.save_pretrained(folder)
    processing = {"image_processor_type": "Sam2ImageProcessorFast", "size": {"height": 64, "width": 64}} | IMAGENET
    (folder / "preprocessor_config.json").write_text(json.dumps(processing))
    return folder


def tiny_depth_anything(folder: Path, kind: str = "relative") -> Path:
    """Depth Anything for pictures of about 56 x 42 pixels; ``kind`` is ``relative`` (disparity) or ``metric``."""
    import torch
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessorPil,
    )

    torch.manual_seed(0)
    backbone = Dinov2Config(
        image_size=56, patch_size=14, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False,  # pyright: ignore
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
    )  # fmt: skip
    model = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():  # the last rectifier would else make it nothing at all
        for parameter in model.head.parameters():
            parameter.normal_(0, 0.5)
        torch.nn.init.constant_(model.head.conv3.bias, 2.0)  # pyright: ignore
    model.save_pretrained(folder)
    DPTImageProcessorPil(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3
    ).save_pretrained(folder)
    return folder


def tiny_depth_pro(folder: Path, field_of_view: bool = True) -> Path:
    """Depth Pro for 128 x 128 pixels, with or without its own guess of the field of view."""
    import torch
    from transformers import DepthProConfig, DepthProForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    encoder = Dinov2Config(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2
    )
    config = DepthProConfig(
        patch_size=32, fusion_hidden_size=16, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8],
        scaled_images_feature_dims=[16, 16, 8], merge_padding_value=1, use_fov_model=field_of_view,
        image_model_config=encoder, patch_model_config=encoder, fov_model_config=encoder,
    )  # fmt: skip
    model = DepthProForDepthEstimation(config)
    torch.nn.init.constant_(model.head.layers[4].bias, 0.8)  # pyright: ignore
    if model.fov_model is not None:
        torch.nn.init.constant_(model.fov_model.head.layers[4].bias, 60.0)  # pyright: ignore
    model.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    processing = {"image_processor_type": "DepthProImageProcessor", "size": {"height": 128, "width": 128}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processing | {"image_mean": half, "image_std": half}))
    return folder
