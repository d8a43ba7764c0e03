"""glTF 2.0, the format of browsers and game engines: animated skeletons, with a stick figure or a body model's skin."""

from lmm.motion.gltf.reader import read_gltf, read_gltf_caption, read_gltf_fitted
from lmm.motion.gltf.writer import pose_body, write_gltf

__all__ = ["pose_body", "read_gltf", "read_gltf_caption", "read_gltf_fitted", "write_gltf"]
