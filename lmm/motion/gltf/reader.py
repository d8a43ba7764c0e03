"""Reading glTF 2.0 (``.glb``, ``.gltf``), anybody's.

The joints of the first skin, or the tree that the animation moves; translation, rotation and scale tracks of every
interpolation, matrix nodes, nodes between and above the joints. Rotations are those from the file's rest pose.
"""

from pathlib import Path

import numpy as np
import pygltflib as gl
import torch
from jaxtyping import Float64
from torch import Tensor

from lmm.motion.gltf.container import AGAIN, LARGEST, GltfFile, check_unit, floats, whole
from lmm.motion.motion import Motion
from lmm.motion.rotations import quaternion_slerp, quaternion_to_matrix
from lmm.motion.skeleton import file_skeleton
from lmm.motion.transforms import HIGHEST_FPS, LOWEST_FPS, check_fps

_MAX_JOINTS = 1000
_MAX_POSES = 5_000_000  # joints x frames: 100 joints for half an hour at 30 fps
_MAX_KEYS = 20_000_000  # of all tracks together, however many share an array
_USUAL_FPS = 30.0
_SNAP = 1e-3  # of a frame


def read_gltf(file: str | Path, *, fps: float | None = None, animation: int | None = None) -> Motion:
    """Read one animation of a glTF file.

    Args:
        file: ``.glb`` or ``.gltf``; a ``.gltf`` may name buffers beside it, nothing outside its folder.
        fps: frames a second to sample the tracks at. Left out: what the file's ``extras`` say, else the usual distance
            of its keys, else 30 (keys that are farther apart than a tenth of a second are no frames).
        animation: which one, from 0; needed only where the file has several.

    Returns:
        Joints in metres and rotations from the file's rest pose, on the joints of the first skin (and the node that
        holds them together), or without a skin on the tree that the animation moves. Parts are those in ``extras``,
        HumanML3D's if the joints are called so, else one, ``body``. Morph weights are no motion of joints.

    Raises:
        ValueError: the file is not sound; the message says what and what to do.
    """
    path = Path(file)
    try:
        return _Reader(path).motion(fps, animation)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (AttributeError, TypeError) as error:  # its JSON has something else where the format has lists or objects
        raise ValueError(f"{path}: not sound glTF ({error}); {AGAIN}") from error


def read_gltf_caption(file: str | Path) -> str:
    """The caption that `write_gltf` kept; empty where there is none."""
    try:
        return str(GltfFile(Path(file)).ours.get("caption", ""))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def read_gltf_fitted(file: str | Path) -> bool:
    """Whether `write_gltf` noted that the rotations were fitted to joint positions, not recorded."""
    try:
        return GltfFile(Path(file)).ours.get("rotations_fitted") is True
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


class _Reader:
    """Walks the nodes of one file and poses them."""

    def __init__(self, path: Path) -> None:
        self.file = GltfFile(path)
        self.gltf = self.file.gltf
        self.parents = [-1] * len(self.gltf.nodes)
        for index, node in enumerate(self.gltf.nodes):
            for child in node.children or []:
                if self.parents[whole(child, len(self.parents), "node")] >= 0:
                    raise ValueError(f"node {child} has two parents; {AGAIN}")
                self.parents[child] = index
        self.depths = [len(self._chain(index)) for index in range(len(self.parents))]

    def motion(self, fps: float | None, animation: int | None) -> Motion:
        """The motion at a frame rate."""
        tracks = self._tracks(animation)
        joints, parents = self._joints([node for node, _ in tracks])
        needed = sorted({node for joint in joints for node in self._chain(joint)}, key=self.depths.__getitem__)
        tracks = {target: track for target, track in tracks.items() if target[0] in set(needed)}
        if not tracks:
            raise ValueError("the animation moves no joint of the skin; export the skeleton's animation with it")
        times = [track[0] for track in tracks.values()]
        fps = self._fps(max(times, key=len)) if fps is None else fps
        check_fps(fps)
        start, end = min(t[0] for t in times), max(t[-1] for t in times)
        num_frames = int((end - start) * fps + _SNAP) + 1
        if num_frames * len(needed) > _MAX_POSES:
            raise ValueError(f"{num_frames} frames of {len(needed)} joints are too many; cut it or give a lower fps")
        at = start + np.arange(num_frames) / fps
        sampled = {target: _sample(*track, at, _SNAP / fps) for target, track in tracks.items()}
        positions, turns = self._world(needed, sampled, num_frames)
        rest_positions, rest_turns = self._world(needed, {}, 1)

        places = torch.stack([rest_positions[joint][0] for joint in joints])
        offsets = torch.cat([places[:1], places[1:] - places[parents[1:]]])
        world = torch.stack([turns[joint] @ rest_turns[joint].transpose(-1, -2) for joint in joints], dim=1)
        local = torch.cat([world[:, :1], world[:, parents[1:]].transpose(-1, -2) @ world[:, 1:]], dim=1)
        path = torch.stack([positions[joint] for joint in joints], dim=1)
        if not (path.abs() < LARGEST).all():
            raise ValueError(f"joints are farther than {LARGEST:g} m from the origin; {AGAIN}")
        names = [self._name(joint) for joint in joints]
        skeleton, order = file_skeleton(names, parents, offsets.tolist(), self._parts(len(joints)))
        return Motion(path[:, order].float(), float(fps), skeleton, local[:, order].float())

    def _name(self, node: int) -> str:
        name = self.gltf.nodes[node].name
        return name if isinstance(name, str) and name else f"joint_{node}"

    def _parts(self, num_joints: int) -> dict[str, tuple[int, ...]] | None:
        """The parts that `write_gltf` kept, if they still are those of the joints."""
        try:
            parts = {str(name): tuple(int(j) for j in joints) for name, joints in self.file.ours["parts"].items()}
        except (KeyError, AttributeError, TypeError, ValueError, OverflowError):
            return None
        covered = sorted(joint for joints in parts.values() for joint in joints)
        return parts if covered == list(range(num_joints)) else None

    def _fps(self, times: Float64[np.ndarray, " K"]) -> float:
        told = self.file.ours.get("fps")
        if isinstance(told, int | float) and LOWEST_FPS <= told <= HIGHEST_FPS:
            return float(told)
        steps = np.diff(times) if len(times) > 1 else np.array([1.0])
        even = np.abs(steps - steps.mean()).max() < 0.01 * steps.mean()  # then the mean says it more exactly
        fps = 1 / float(steps.mean() if even else np.median(steps))
        if not 10 * (1 - _SNAP) <= fps <= HIGHEST_FPS:
            return _USUAL_FPS
        return round(fps, 3) if abs(fps / round(fps, 3) - 1) < 2e-7 else fps

    def _chain(self, node: int) -> list[int]:
        """A node and its ancestors, nearest first."""
        chain = [node]
        while (parent := self.parents[chain[-1]]) >= 0:
            chain.append(parent)
            if len(chain) > _MAX_JOINTS:
                raise ValueError(f"its nodes go in circles or deeper than {_MAX_JOINTS}; {AGAIN}")
        return chain

    def _joints(self, animated: list[int]) -> tuple[list[int], list[int]]:
        """The nodes to take as joints, the root first and parents before children, and each one's parent among them."""
        nodes, skins = self.gltf.nodes, self.gltf.skins
        skin = [whole(joint, len(nodes), "joint") for joint in skins[0].joints or []] if skins else []
        joints = list(dict.fromkeys(skin or animated))
        shared = set(self._chain(joints[0])).intersection(*(self._chain(node) for node in joints))
        if not shared:
            raise ValueError("its joints hang on no common node; parent them to one root and export again")
        root = max(shared, key=self.depths.__getitem__)
        if not skin:
            joints = [node for node in range(len(nodes)) if root in self._chain(node)]
        joints = joints if root in joints else [root, *joints]
        if len(joints) > _MAX_JOINTS:
            raise ValueError(f"more than {_MAX_JOINTS} joints; this is no body")
        for _ in range(2):  # the file's own order if it will do
            number = {joint: index for index, joint in enumerate(joints)}
            parents = [next((number[n] for n in self._chain(j)[1:] if n in number), -1) for j in joints]
            if all(parent < index for index, parent in enumerate(parents)):
                break
            joints.sort(key=self.depths.__getitem__)
        return joints, parents

    def _tracks(self, animation: int | None) -> dict[tuple[int, str], tuple[np.ndarray, np.ndarray, str]]:
        """Key times, values and interpolation by node and property."""
        animations, tracks = self.gltf.animations, {}
        if len(animations) > 1 and animation is None:
            names = ", ".join(f"{i}: {a.name}" for i, a in enumerate(animations[:9]))
            raise ValueError(f"holds several animations ({names}); read_gltf(file, animation=0) takes the first")
        if not animations:
            raise ValueError("holds no animation; export the skeleton with its animation")
        chosen = animations[whole(animation or 0, len(animations), "animation")]
        used = [chosen.samplers[whole(c.sampler, len(chosen.samplers), "sampler")] for c in chosen.channels]
        if (total := sum(self.file.count(sampler.output) for sampler in used)) > _MAX_KEYS:
            raise ValueError(f"its tracks have {total} keys together, more than {_MAX_KEYS}; cut it into shorter files")
        for channel in chosen.channels:
            target, sampler = channel.target, chosen.samplers[whole(channel.sampler, len(chosen.samplers), "sampler")]
            if target.node is None or target.path == gl.WEIGHTS:
                continue  # as the format has it: a track of no node, and morphs
            node = whole(target.node, len(self.parents), "node")
            if target.path not in (gl.TRANSLATION, gl.ROTATION, gl.SCALE) or (node, target.path) in tracks:
                raise ValueError(f"an unknown or second track {target.path!r} of node {node}; {AGAIN}")
            if self.gltf.nodes[node].matrix is not None:
                raise ValueError(f"animates node {node}, which has a matrix; {AGAIN} with translation and rotation")
            mode = sampler.interpolation or gl.ANIM_LINEAR
            if mode not in (gl.ANIM_LINEAR, gl.ANIM_STEP, gl.ANIM_CUBICSPLINE):
                raise ValueError(f"unknown interpolation {mode!r}; {AGAIN}")
            times = self.file.array(sampler.input, "SCALAR")[:, 0]
            values = self.file.array(sampler.output, "VEC4" if target.path == gl.ROTATION else "VEC3")
            size = 3 if mode == gl.ANIM_CUBICSPLINE else 1  # arriving tangent, value, leaving tangent
            if times[0] < 0 or (np.diff(times) <= 0).any() or len(values) != size * len(times):
                raise ValueError(f"the keys of node {node} are out of order or not as many as its values; {AGAIN}")
            keys = values.reshape(len(times), size, -1)
            if target.path == gl.ROTATION:
                check_unit(keys[:, size // 2])
            tracks[node, target.path] = (times, keys, mode)
        if not tracks:
            raise ValueError("its animation moves no node; export it with the skeleton's animation")
        return tracks

    def _world(
        self, nodes: list[int], sampled: dict[tuple[int, str], np.ndarray], num_frames: int
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Positions "T 3" and orientations "T 3 3" in the scene; tracks replace what a node says of itself."""
        position, linear, turn = {}, {}, {}
        for node in nodes:
            own, above = self.gltf.nodes[node], self.parents[node]
            if own.matrix is not None:
                matrix = torch.tensor(floats(own.matrix, 16), dtype=torch.float64).view(1, 4, 4).mT
                shift, stretch = matrix[:, :3, 3], matrix[:, :3, :3]
                u, _, v = torch.linalg.svd(stretch)
                rotation, mirrored = u @ v, torch.linalg.det(stretch) < 0
            else:
                shift, unit, scale = (
                    torch.from_numpy(sampled[node, name] if (node, name) in sampled else np.array([given]))
                    for name, given in (
                        (gl.TRANSLATION, floats(own.translation or [0] * 3, 3)),
                        (gl.ROTATION, floats(own.rotation or [0, 0, 0, 1], 4)),
                        (gl.SCALE, floats(own.scale or [1] * 3, 3)),
                    )
                )
                if (node, gl.ROTATION) not in sampled:
                    check_unit(unit.numpy())
                rotation = quaternion_to_matrix(torch.nn.functional.normalize(unit, dim=-1)[:, [3, 0, 1, 2]])
                stretch, mirrored = rotation * scale[:, None, :], (scale.prod(dim=-1) < 0).any()
            if mirrored:
                raise ValueError(f"node {self._name(node)!r} mirrors; apply its negative scale and export again")
            shift, stretch, rotation = (x.expand(num_frames, *x.shape[1:]) for x in (shift, stretch, rotation))
            position[node], linear[node], turn[node] = shift, stretch, rotation
            if above >= 0:
                position[node] = position[above] + (linear[above] @ shift[..., None]).squeeze(-1)
                linear[node], turn[node] = linear[above] @ stretch, turn[above] @ rotation
        return position, turn


def _sample(
    times: Float64[np.ndarray, " K"], keys: Float64[np.ndarray, "K S C"], mode: str, at: np.ndarray, near: float
) -> Float64[np.ndarray, "T C"]:
    """A track's values at given times; before the first key and after the last it stands still."""
    at = np.clip(at, times[0], times[-1])
    before = np.searchsorted(times, at + near, side="right") - 1
    after = np.minimum(before + 1, len(times) - 1)
    passed = at - times[before]
    passed[passed < near] = 0  # key times are float32: what is nearly a key is one
    span = np.where(after > before, times[after] - times[before], 1.0)[:, None]
    p = passed[:, None] / span
    if mode == gl.ANIM_STEP:
        return keys[before, 0]
    if mode == gl.ANIM_CUBICSPLINE:
        start, end, leaving, arriving = keys[before, 1], keys[after, 1], keys[before, 2], keys[after, 0]
        value = (2 * p**3 - 3 * p**2 + 1) * start + (3 * p**2 - 2 * p**3) * end
        return value + span * ((p**3 - 2 * p**2 + p) * leaving + (p**3 - p**2) * arriving)
    if keys.shape[-1] == 4:
        a, b = (torch.nn.functional.normalize(torch.from_numpy(keys[i, 0]), dim=-1) for i in (before, after))
        return quaternion_slerp(a, b, torch.from_numpy(p)).numpy()
    return keys[before, 0] + p * (keys[after, 0] - keys[before, 0])
