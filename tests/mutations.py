"""One-line faults. Each is applied alone to a copy of the sources, and a named test must fail.

`python tests/mutations.py [NAME...]` tries all faults, or the faults whose name contains one of the words. It first
runs the named tests on the unchanged sources. It prints a table and exits with 1 if a test does not notice its fault.
It is not part of the default suite, because a fault takes a few seconds.

The text of a fault must occur exactly once in all sources (`ROOTS`), so files can move without changes here.
"""

import dataclasses
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOTS = ("i2l_meshnet", "i2l_lab")
"""Packages in `src`."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """name: area and fault. old, new: text of the source before and after. test: the test that fails."""

    name: str
    old: str
    new: str
    test: str


FAULTS = (
    # Faults that the tests once did not notice, and similar ones.
    Fault(
        "training: accumulated batches count alike",
        "share = len(sample.image) / images",
        "share = 1 / len(samples)",
        "tests/training/test_loop.py::test_accumulated_batches_equal_one_big_batch",
    ),
    Fault(
        "training: average without warm-up",
        "decay = min(self._decay, (1 + step) / (10 + step))",
        "decay = self._decay",
        "tests/training/test_average.py::test_early_steps_count_more_than_the_decay_says",
    ),
    Fault(
        "lifting: gradient of the basis",
        "coefficients.grad = self.basis.T @ row.grad",
        "coefficients.grad = 0.1 * (self.basis.T @ row.grad)",
        "tests/lab/test_lifting.py::test_rows_are_trained_by_their_coefficients_in_the_basis",
    ),
    Fault(
        "lifting: biases and norms decay",
        '{"params": others, "weight_decay": 0.0}',
        '{"params": others}',
        "tests/lab/test_lifting.py::test_biases_and_norms_do_not_decay",
    ),
    Fault(
        "lifting: points outside have a high confidence",
        "confidence.clamp(max=0.3) * uniform(n, 26)",
        "confidence.clamp(max=1.0) * uniform(n, 26)",
        "tests/lab/test_lifting.py::test_points_outside_the_crop_have_low_confidence",
    ),
    Fault(
        "prediction: a person almost outside is placed by what is inside",
        "torch.where(weights.sum(-1, keepdim=True) < 0.1 * self._area.sum(), self._area, weights)",
        "weights",
        "tests/prediction/test_predictor.py::test_a_body_almost_outside_is_placed_by_all_of_it",
    ),
    Fault(
        "prediction: letterbox by the nearest pixel",
        "interpolation=cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR",
        "interpolation=cv2.INTER_NEAREST",
        "tests/prediction/test_detect.py::test_the_letterbox_mixes_pixels",
    ),
    Fault(
        "video: a detection never replaces a drifted box",
        "if overlap[row, matched[row]] < DRIFTED_BOX:",
        "if overlap[row, matched[row]] < 0:",
        "tests/video/test_tracking.py::test_a_detection_replaces_a_box_that_has_drifted_away",
    ),
    Fault(
        "video: phantoms are kept",
        "self._tracks = [track for track in self._tracks if not track.is_phantom(time, self.max_gap)]",
        "pass",
        "tests/video/test_tracking.py::test_whom_the_detector_never_finds_again_is_given_up",
    ),
    Fault(
        "data: multi-view crops by another rule",
        "return Crop.around(box, crop_size, clip_to=(math.inf, math.inf))",
        "return Crop.around(box, crop_size, margin=1.1, clip_to=(math.inf, math.inf))",
        "tests/data/test_multiview.py::test_people_are_found_and_placed",
    ),
    # Two or more faults of each package.
    Fault(
        "training: edges are weighted by another vertex",
        "(c - target_c).abs() * (weight_b * weight_c)",
        "(c - target_c).abs() * (weight_a * weight_c)",
        "tests/training/test_losses.py::test_golden_values_and_gradients",
    ),
    Fault(
        "training: the learning rate falls an epoch late",
        "sum(epoch >= decay for decay in self.decay_epochs)",
        "sum(epoch > decay for decay in self.decay_epochs)",
        "tests/training/test_recipes.py::test_published_schedule",
    ),
    Fault(
        "training: the parameter stage lets the lixel network drift",
        "network.freeze_lixel_parts(batchnorm_drifts=self._drifts)",
        "network.freeze_lixel_parts(batchnorm_drifts=True)",
        "tests/training/test_stages.py::test_parameter_stage_trains_the_regressor",
    ),
    Fault(
        "training: depths of landmarks in another unit",
        "depth = (joints[..., 2] - joints[:, :1, 2]) * scale",
        "depth = (joints[..., 2] - joints[:, :1, 2]) * scale * scale",
        "tests/lab/test_hand_lifting.py::test_the_map_gives_what_the_network_answers",
    ),
    Fault(
        "geometry: crops are cut about half a pixel beside",
        "shift = target / 2 - (linear @ center[..., None])[..., 0]",
        "shift = (target - 1) / 2 - (linear @ center[..., None])[..., 0]",
        "tests/geometry/test_geometry_golden.py::test_crop_affines_are_the_published_ones",
    ),
    Fault(
        "geometry: alignment reflects",
        "flip[..., -1] = torch.linalg.det(u @ vt).sign()",
        "flip[..., -1] = 1",
        "tests/geometry/test_crop_camera_lixel.py::test_alignment_does_not_reflect",
    ),
    Fault(
        "geometry: boxes are not brought to the crop's aspect",
        "torch.maximum(height, width / aspect)",
        "height",
        "tests/geometry/test_geometry_golden.py::test_boxes_are_prepared_as_published",
    ),
    Fault(
        "bodies: rotations are applied in the other order",
        "turned.append(rotation @ rotations[..., bones, :, :])",
        "turned.append(rotations[..., bones, :, :] @ rotation)",
        "tests/bodies/test_layers_golden.py::test_mano_equals_the_published_layer",
    ),
    Fault(
        "bodies: a mirrored body's faces look inwards",
        'self.register_buffer("faces", original.faces.flip(-1), persistent=False)',
        'self.register_buffer("faces", original.faces, persistent=False)',
        "tests/bodies/test_bodies_contract.py::test_faces_exist_and_all_look_outward[anny-hand-left]",
    ),
    Fault(
        "data: scale changes the other way",
        "scale = 1 + SCALE_RANGE * min(max(normal(), -1.0), 1.0)",
        "scale = 1 - SCALE_RANGE * min(max(normal(), -1.0), 1.0)",
        "tests/data/test_augmentation.py::test_draws_are_the_published_ones",
    ),
    Fault(
        "data: mirrored fits stand elsewhere",
        "2 * middle * start[:, 2] - 2 * start[:, 0]",
        "2 * middle * start[:, 2] - start[:, 0]",
        "tests/data/test_samples_golden.py::test_training_samples",
    ),
    Fault(
        "data: an epoch's order does not depend on the epoch",
        "order = np.random.default_rng((self._seed, self._epoch)).permutation(self._length)",
        "order = np.random.default_rng((self._seed, 0)).permutation(self._length)",
        "tests/data/test_mixture.py::test_ranks_share_an_epoch_and_resume_in_it",
    ),
    Fault(
        "models: rows for columns",
        "return wide.mean(2), wide.mean(3), spread",
        "return wide.mean(3), wide.mean(2), spread",
        "tests/models/test_lixel_head.py::test_axes_follow_columns_rows_and_depth",
    ),
    Fault(
        "models: gradient of the soft-argmax",
        "grad_logits *= _index(sample) - center[i][:, None]",
        "grad_logits *= _index(sample)",
        "tests/models/test_lixel_head.py::test_gradients_equal_finite_differences",
    ),
    Fault(
        "models: outliers are not faded out",
        "weight = (OUTLIER / (OUTLIER + residual.square().sum(-1))).square()[..., None]",
        "weight = torch.ones_like(residual[..., :1])",
        "tests/models/test_fitting.py::test_outliers_are_faded_out",
    ),
    Fault(
        "models: a small step of the fit is made longer",
        "angles = angles * (MAX_ROTATION / angles.norm(dim=-1, keepdim=True).clamp_min(MAX_ROTATION))",
        "angles = angles * (MAX_ROTATION / angles.norm(dim=-1, keepdim=True).clamp_min(1e-9))",
        "tests/models/test_fitting.py::test_an_exact_answer_stays",
    ),
    Fault(
        "animation: angles jump",
        "angles = np.unwrap(np.concatenate([before, angles]), period=360, axis=0)[1:]",
        "angles = np.concatenate([before, angles])[1:]",
        "tests/animation/test_bvh_writing.py::test_angles_do_not_jump",
    ),
    Fault(
        "animation: the smallest influences come first",
        'order = np.argsort(-weights, axis=1, kind="stable")[:, :columns]',
        'order = np.argsort(weights, axis=1, kind="stable")[:, -columns:]',
        "tests/animation/test_glb.py::test_influences_come_in_fours_largest_first",
    ),
    Fault(
        "evaluation: recall counts like precision",
        "recall = (distance.amin(-2) < threshold)",
        "recall = (distance.amin(-1) < threshold)",
        "tests/evaluation/test_metrics.py::test_f_score_of_shifted_grids",
    ),
    Fault(
        "evaluation: shares of the box's shorter side",
        "/ max(person.box[2:])",
        "/ min(person.box[2:])",
        "tests/evaluation/test_coco_keypoints.py::test_pck_is_relative_to_the_box",
    ),
    Fault(
        "evaluation: accelerations by the rate itself",
        "return change.norm(dim=-1).mean(-1) * rate**2",
        "return change.norm(dim=-1).mean(-1) * rate",
        "tests/evaluation/test_metrics.py::test_constant_motion_has_no_acceleration_error",
    ),
    Fault(
        "exporting: meshes are compared kilometres away",
        "return torch.clamp(torch.tensor(person.root_depth), max=farthest.float())",
        "return torch.tensor(person.root_depth)",
        "tests/exporting/test_deviation.py::test_a_mesh_that_nobody_trained_is_compared_within_reach",
    ),
    Fault(
        "exporting: deviations in the wrong unit",
        "return Deviation(len(pairs), 1000 * float(meshes.max()), 1000 * float(meshes.mean()), worst)",
        "return Deviation(len(pairs), 1000 * float(meshes.max()), float(meshes.mean()), worst)",
        "tests/exporting/test_deviation.py::test_a_mesh_that_nobody_trained_is_compared_within_reach",
    ),
    Fault(
        "fleet: pictures without people have no row",
        '    if not record["people"]:\n        return [picture]',
        '    if not record["people"]:\n        return []',
        "tests/fleet/test_table_rows.py::test_a_picture_without_people_has_a_row_without_a_person",
    ),
    Fault(
        "fleet: parts grow without end",
        "if sum(table.num_rows for table in self._waiting) >= self._part_rows:",
        "if not self._waiting:",
        "tests/fleet/test_table_rows.py::test_a_table_grows_by_whole_parts_and_knows_its_pictures",
    ),
    Fault(
        "prediction: boxes in letterbox pixels",
        "corners = dets[:, :4] / scale",
        "corners = dets[:, :4].copy()",
        "tests/prediction/test_detect.py::test_boxes_come_back_in_picture_pixels_best_first_and_inside",
    ),
    Fault(
        "prediction: a box's own depth does not come first",
        "person.root_depth if person.root_depth is not None else root_depth",
        "root_depth if root_depth is not None else person.root_depth",
        "tests/prediction/test_predictor.py::test_a_given_root_depth_is_kept",
    ),
    Fault(
        "rendering: bias pushes back",
        "key = np.float32(z - bias[f])",
        "key = np.float32(z + bias[f])",
        "tests/rendering/test_raster.py::test_bias_decides_who_is_in_front_but_not_the_depth",
    ),
    Fault(
        "rendering: depth is not that of the ray",
        "depth[y, x] = (e0 + e1 + e2) / total",
        "depth[y, x] = (e0 * z0 + e1 * z1 + e2 * z2) / (e0 + e1 + e2)",
        "tests/rendering/test_raster.py::test_depth_and_weights_are_those_of_the_camera_ray",
    ),
    Fault(
        "serving: any name is answered",
        "if len(hosts) != 1 or not is_known_host(hosts[0], self._names):",
        "if len(hosts) != 1:",
        "tests/serving/test_guard.py::test_only_known_names_and_addresses_are_answered",
    ),
    Fault(
        "serving: other sites may send pictures",
        "if origin is not None and _authority(origin) != host.lower():",
        "if origin is not None and _authority(origin) is None:",
        "tests/serving/test_guard.py::test_other_sites_cannot_send_pictures",
    ),
    Fault(
        "serving: what a browser says of the site does not count",
        'return fetch_site in (None, "same-origin", "none")',
        "return True",
        "tests/serving/test_guard.py::test_other_sites_cannot_send_pictures",
    ),
    Fault(
        "synthetic: boxes lie beside people",
        "box = torch.cat([center - size / 2, size], 1)\n        frame",
        "box = torch.cat([center - size / 3, size], 1)\n        frame",
        "tests/lab/test_views.py::test_without_jitter_the_box_is_the_projection",
    ),
    Fault(
        "synthetic: women are as tall as men",
        'mean = torch.where(gender > 0.5, STATURE["female"][0], STATURE["male"][0])',
        'mean = torch.where(gender > 0.5, STATURE["male"][0], STATURE["male"][0])',
        "tests/lab/test_views.py::test_adults_have_realistic_statures",
    ),
    Fault(
        "video: One-Euro does not quicken",
        "cutoff = self.cutoff + self.gain * self._speed.norm(dim=-1, keepdim=True)",
        "cutoff = self.cutoff + 0 * self._speed.norm(dim=-1, keepdim=True)",
        "tests/video/test_smoothing.py::test_one_euros_lag_at_a_steady_speed_is_bounded",
    ),
    Fault(
        "video: gaps are bridged by the middle",
        "share = steps.reshape(-1, *[1] * one.ndim)",
        "share = 0 * steps.reshape(-1, *[1] * one.ndim)",
        "tests/video/test_clip_job.py::test_a_clip_gives_videos_tracks_and_animation",
    ),
    Fault(
        "viewing: every person of a photo is the first",
        "return arrays[prefix + key][row : row + 1]",
        "return arrays[prefix + key][:1]",
        "tests/viewing/test_rig_command.py::test_a_photo_is_read_back_from_each_of_its_files",
    ),
    Fault(
        "viewing: a track starts at the clip's beginning",
        "row = number - int(track.frame[0])",
        "row = number",
        "tests/viewing/test_view.py::test_a_clip_plays_round_and_people_come_and_go",
    ),
    Fault(
        "files: what a failed writer left stays",
        "        if not renamed:\n            with contextlib.suppress(OSError):",
        "        if renamed:\n            with contextlib.suppress(OSError):",
        "tests/test_io.py::test_an_error_leaves_the_old_file_and_no_remains",
    ),
    Fault(
        "commands: a user's mistake ends with 0",
        'print(f"{self.name}: {flag}{error}", file=sys.stderr)\n            return 1',
        'print(f"{self.name}: {flag}{error}", file=sys.stderr)\n            return 0',
        "tests/test_cli.py::test_errors_that_users_can_fix_are_one_line_and_exit_code_1",
    ),
    # Found by trying faults in what is merged: crops, readers, the trainer, evaluations, tracks, results, drawings.
    Fault(
        "geometry: unclipped crops fit the shorter side",
        "torch.maximum(height, width / aspect)",
        "torch.minimum(height, width / aspect)",
        "tests/geometry/test_crop_camera_lixel.py::test_a_crop_contains_the_box_with_its_margin",
    ),
    Fault(
        "training: a row of the log is one step",
        "means = torch.stack(self._sums).mean(0).tolist()",
        "means = self._sums[-1].tolist()",
        "tests/training/test_loop.py::test_rows_of_the_log_are_means_and_gradients_are_clipped",
    ),
    Fault(
        "training: gradients are clipped at ten times the limit",
        "max_norm=self._recipe.clip, error",
        "max_norm=10 * self._recipe.clip, error",
        "tests/training/test_loop.py::test_rows_of_the_log_are_means_and_gradients_are_clipped",
    ),
    Fault(
        "training: the newest weights are the best",
        "better, self.best = first < self.best, min(first, self.best)",
        "better, self.best = first < self.best, first",
        "tests/training/test_loop.py::test_the_best_snapshot_has_the_lowest_error",
    ),
    Fault(
        "training: the best error is forgotten at a stop",
        "self.position, self.best = state.position, state.best",
        "self.position = state.position",
        "tests/training/test_loop.py::test_the_best_snapshot_has_the_lowest_error",
    ),
    Fault(
        "training: errors of samples without a truth count",
        "sums[:2] += torch.stack([(error * weight).sum(), weight.sum()])",
        "sums[:2] += torch.stack([error.sum(), torch.ones_like(weight).sum()])",
        "tests/training/test_loop.py::test_the_best_snapshot_has_the_lowest_error",
    ),
    Fault(
        "evaluation: statures err to the other side",
        "difference = (height - true_height)[chosen]",
        "difference = (true_height - height)[chosen]",
        "tests/evaluation/test_synthetic_pictures.py::test_equal_shapes_for_all_people_do_not_correlate",
    ),
    Fault(
        "evaluation: held-out meshes are rooted at one hip",
        "readout = torch.cat([joints[list(HIPS)].mean(0, keepdim=True), joints])",
        "readout = torch.cat([joints[[HIPS[0]]], joints])",
        "tests/evaluation/test_synthetic_pictures.py::test_errors_of_one_moved_leg",
    ),
    Fault(
        "prediction: the scale bar has one length",
        "end = x + round(length * scale)",
        "end = x + round(length * 100)",
        "tests/prediction/test_overlay.py::test_views_show_depth_and_height",
    ),
    Fault(
        "prediction: mean and median change places",
        "median, mean = person.reprojection_error",
        "mean, median = person.reprojection_error",
        "tests/prediction/test_results.py::test_the_record_tells_median_and_mean_apart",
    ),
    Fault(
        "geometry: boxes are widened to one side",
        "return torch.cat([boxes[..., :2] + boxes[..., 2:] / 2 - sides / 2, sides], -1)",
        "return torch.cat([boxes[..., :2], sides], -1)",
        "tests/prediction/test_predictor.py::test_a_prepared_box_is_used_as_it_is",
    ),
    Fault(
        "data: crops of reduced pictures are shifted",
        "shift = affine[:, :2].sum(-1, keepdim=True) * (factor - 1) / 2",
        "shift = affine[:, :2].sum(-1, keepdim=True) * 0",
        "tests/data/test_dataset.py::test_reduced_decoding_gives_the_crop_of_the_whole_picture",
    ),
    Fault(
        "data: people without RootNet's box are kept",
        "        if entry is None:\n            return None\n        return {",
        "        if entry is None:\n            return {}\n        return {",
        "tests/data/test_sources.py::test_a_person_without_rootnets_box_is_left_out",
    ),
    Fault(
        "video: people out of sight stay where they were",
        "(REACH + REACH_A_SECOND * (time - track.seen))",
        "REACH",
        "tests/video/test_tracking.py::test_the_longer_somebody_is_unseen_the_farther_they_may_be",
    ),
    Fault(
        "video: people out of sight keep their speed",
        "return self.velocity * COASTING * (1 - math.exp(-(time - self.seen) / COASTING))",
        "return self.velocity * (time - self.seen)",
        "tests/video/test_tracking.py::test_somebody_who_stops_out_of_sight_is_not_expected_far_ahead",
    ),
    Fault(
        "video: boxes outside are looked into",
        " and np.prod(high - low) >= VISIBLE_SHARE * np.prod(box[2:])",
        "",
        "tests/video/test_tracking.py::test_a_box_that_is_hardly_in_the_picture_is_not_looked_into",
    ),
    Fault(
        "video: who is larger is nearer",
        "ratio = rest_size(body, shape) / rest_size(body, self.shape)",
        "ratio = rest_size(body, self.shape) / rest_size(body, shape)",
        "tests/video/test_smoothing.py::test_who_is_larger_than_thought_is_farther_away",
    ),
    Fault(
        "prediction: colours change with who is drawn",
        "[s for _, s in layer], *camera, [number for number, _ in layer])",
        "[s for _, s in layer], *camera)",
        "tests/prediction/test_results.py::test_doubtful_people_are_drawn_only_if_there_are_no_others",
    ),
    Fault(
        "prediction: normals of .glb in the camera's frame",
        "vertices, normals, faces = surface.vertices * CAMERA_TO_GLTF, surface.normals * CAMERA_TO_GLTF, surface.faces",
        "vertices, normals, faces = surface.vertices * CAMERA_TO_GLTF, surface.normals, surface.faces",
        "tests/prediction/test_mesh_files.py::test_a_scene_holds_all_meshes_in_their_colours",
    ),
    # Parity switches, each lost and always on; docs/parity.md.
    Fault(
        "parity: middle fingertip of the published network lost",
        "MANO_PUBLISHED_TIPS if published_regressor else None",
        "None",
        "tests/bodies/test_layers_golden.py::test_manos_regressor_takes_the_right_or_the_published_fingertip",
    ),
    Fault(
        "parity: middle fingertip of the published network always",
        "MANO_PUBLISHED_TIPS if published_regressor else None",
        "MANO_PUBLISHED_TIPS",
        "tests/bodies/test_layers_golden.py::test_manos_regressor_takes_the_right_or_the_published_fingertip",
    ),
    Fault(
        "parity: load_network ignores the published regressor",
        'if published_regressor and name == "mano":',
        "if False:",
        "tests/training/test_parity_switches.py::test_middle_fingertip",
    ),
    Fault(
        "parity: published COCO pelvis lost",
        "if self._published_pelvis:",
        "if False:",
        "tests/data/test_samples_golden.py::test_training_samples[MSCOCO-A]",
    ),
    Fault(
        "parity: published COCO pelvis always",
        "if self._published_pelvis:",
        "if True:",
        "tests/data/test_samples_golden.py::test_a_perfect_fit_off_centre_passes_the_mended_check_only",
    ),
    Fault(
        "parity: train ignores coco-fit-check",
        'published_pelvis="coco-fit-check" in self._recipe.parity',
        "published_pelvis=False",
        "tests/training/test_parity_switches.py::test_coco_fit_check[True]",
    ),
    Fault(
        "parity: coco-fit-check always",
        'published_pelvis="coco-fit-check" in self._recipe.parity',
        "published_pelvis=True",
        "tests/training/test_parity_switches.py::test_coco_fit_check[False]",
    ),
    Fault(
        "parity: FreiHAND millimetres lost",
        "if self._scoring.published and meshes.param is not None:",
        "if False:",
        "tests/evaluation/test_protocols_golden.py::test_freihand_submission_is_the_published_one_in_metres[param]",
    ),
    Fault(
        "parity: FreiHAND millimetres always",
        "if self._scoring.published and meshes.param is not None:",
        "if meshes.param is not None:",
        "tests/evaluation/test_protocols_golden.py::test_freihand_submission_is_the_published_one_in_metres[param]",
    ),
    Fault(
        "parity: BatchNorm drift lost",
        "self._frozen_parts = () if batchnorm_drifts else parts",
        "self._frozen_parts = parts",
        "tests/models/test_golden_network.py::test_float32[hand-param-trainbn]",
    ),
    Fault(
        "parity: BatchNorm drift always",
        "self._frozen_parts = () if batchnorm_drifts else parts",
        "self._frozen_parts = ()",
        "tests/models/test_assembly.py::test_only_the_regressor_trains_when_the_rest_is_frozen",
    ),
    Fault(
        "parity: train ignores batchnorm-drift",
        '"batchnorm-drift" in recipe.parity',
        "False",
        "tests/training/test_parity_switches.py::test_batchnorm_drift[True]",
    ),
    Fault(
        "parity: batchnorm-drift always",
        '"batchnorm-drift" in recipe.parity',
        "True",
        "tests/training/test_parity_switches.py::test_batchnorm_drift[False]",
    ),
    Fault(
        "parity: hand millimetres lost",
        '"joint_orig_cam": joint_unit * point_loss',
        '"joint_orig_cam": point_loss',
        "tests/models/test_golden_network.py::test_float32[hand-param-evalbn]",
    ),
    Fault(
        "parity: hand millimetres always",
        '"joint_orig_cam": joint_unit * point_loss',
        '"joint_orig_cam": 1000.0 * point_loss',
        "tests/models/test_golden_network.py::test_float32[body-param-evalbn]",
    ),
    Fault(
        "parity: train ignores hand-millimetres",
        'PUBLISHED_HAND_UNIT if "hand-millimetres" in recipe.parity else 1.0',
        "1.0",
        "tests/training/test_stages.py::test_hand_joints_in_millimetres_are_a_parity_switch",
    ),
    Fault(
        "parity: full decoding lost",
        "if not full_decode and data.startswith(JPEG_START):",
        "if data.startswith(JPEG_START):",
        "tests/training/test_parity_switches.py::test_full_decode",
    ),
    Fault(
        "parity: full decoding always",
        "if not full_decode and data.startswith(JPEG_START):",
        "if False:",
        "tests/training/test_parity_switches.py::test_full_decode",
    ),
    Fault(
        "parity: train ignores full-decode",
        'full_decode="full-decode" in self._recipe.parity',
        "full_decode=False",
        "tests/training/test_parity_switches.py::test_full_decode",
    ),
)


def sources(folder: Path) -> dict[Path, str]:
    """Text of every module below a folder."""
    found = [path for root in ROOTS for path in sorted((folder / root).rglob("*.py"))]
    return {path: path.read_text(encoding="utf-8") for path in found}


def locate(fault: Fault, texts: dict[Path, str]) -> Path:
    """The module that contains a fault's text. Raise ValueError if the text does not occur exactly once."""
    found = [path for path, text in texts.items() for _ in range(text.count(fault.old))]
    if len(found) != 1:
        raise ValueError(f"{fault.name}: its text occurs {len(found)} times, not once: {fault.old!r}")
    return found[0]


def run(tests: list[str], folder: Path, loud: bool = False) -> bool:
    """Whether tests pass with the packages of a folder. A forked process has the large libraries already."""
    child = os.fork()
    if not child:
        os.environ["PYTHONPATH"] = str(folder)
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        if not loud:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
        code = 3
        try:
            # Without the checks of tensor shapes, which make imports slow.
            options = ["-q", "-x", "-o", "addopts=", "-m", "not slow", "-p", "no:cacheprovider"]
            code = pytest.main([*options, *(str(ROOT / test) for test in tests)])
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):
        raise RuntimeError(f"{', '.join(tests)}: pytest exited with {code} before it could run a test")
    return code == 0


def main(words: list[str]) -> int:
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "src"
        shutil.copytree(ROOT / "src", folder)
        texts = sources(folder)
        modules = [locate(fault, texts) for fault in chosen]
        tests = sorted({fault.test for fault in chosen})
        if not run(tests, folder, loud=True):
            print("the named tests fail on the unchanged sources", file=sys.stderr)
            return 1
        survived = 0
        for fault, path in zip(chosen, modules, strict=True):
            times, start = path.stat(), time.monotonic()
            path.write_text(texts[path].replace(fault.old, fault.new), encoding="utf-8")
            noticed = not run([fault.test], folder)
            path.write_text(texts[path], encoding="utf-8")
            # Restore the times, so that the compiled module stays valid.
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            survived += not noticed
            outcome = "noticed" if noticed else "SURVIVED"
            test = fault.test.removeprefix("tests/")
            print(f"{outcome:8}  {fault.name:62}  {test}  {time.monotonic() - start:.0f} s", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} faults noticed")
    return 1 if survived else 0


if __name__ == "__main__":
    # Import the libraries once for all child processes.
    import cv2
    import pytest
    import scipy.optimize  # noqa: F401
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    sys.exit(main(sys.argv[1:]))
