"""The names of our settings in other trainers: TRL, axolotl, LLaMA-Factory, verl, Tinker.

For messages only: one of their keys is an error here, and the error names ours.
"""

from __future__ import annotations

from collections.abc import Mapping

_MICRO_BATCHES = (
    "batch_size is the rows in an optimizer step, whatever fits on the device; how they are cut "
    "into micro batches is up to the adapter, such as "
    "adapters.training_client.micro_batch_tokens of torch"
)
_PER_DEVICE = f"did you mean 'batch_size'? {_MICRO_BATCHES}"
_LORA = "did you mean 'lora', such as lora = { rank = 32 }? Left out, every weight is trained"
_ADAPTER = "it is up to the adapter, such as adapters.training_client.{} of torch"
_ADAPTERS = "it is up to the adapter; `crucible adapters show training_client` has its options"
_SCHEDULE = "did you mean 'warmup_ratio'? It is a share of the steps, not a number"
_RUNS = (
    "records go to the blob store, such as adapters.blob_store.url of fsspec; checkpoints and "
    "weights to the training client, such as adapters.training_client.checkpoint_dir of torch"
)
_KEPT = (
    "did you mean 'render_cache'? Rendered rows are kept for the next start, and rendered again if "
    "anything that they depend on has changed"
)
_WORKERS = (
    "rows are rendered by threads, ahead of the step that needs them, unless check_rows is all"
)
_REFERENCE = (
    "the reference is the model with the weights that the run starts from, those of model or of "
    "from_checkpoint"
)
_METRICS = "metrics go to the metrics store: adapters.metrics_store"

NAMES: Mapping[str, str] = {
    # what is trained
    "model_name_or_path": "model",
    "model_name": "model",
    "model_id": "model",
    "model_path": "model",
    "base_model": "model",
    "pretrained_model_name_or_path": "model",
    "model_revision": "revision",
    "use_peft": _LORA,
    "peft_config": _LORA,
    "adapter": _LORA,
    "finetuning_type": _LORA,
    "lora_r": "lora.rank",
    "lora_rank": "lora.rank",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "lora_target": "lora.targets",
    "lora_target_modules": "lora.targets",
    "lora.r": "lora.rank",
    "lora.lora_alpha": "lora.alpha",
    "lora.lora_dropout": "lora.dropout",
    "lora.target_modules": "lora.targets",
    "adam.lr": "learning_rate",
    "adam.learning_rate": "learning_rate",
    # on what
    "dataset_path": "dataset",
    "train_file": "dataset",
    "train_files": "dataset",
    "train_data": "dataset",
    "train_dataset": "dataset",
    "datasets": "dataset",
    "dataset_config": "dataset_name",
    "dataset_config_name": "dataset_name",
    "train_split": "split",
    "dataset_train_split": "split",
    "dataset_split": "split",
    "eval_dataset": "test_dataset",
    "eval_file": "test_dataset",
    "val_files": "test_dataset",
    "validation_file": "test_dataset",
    "eval_split": "test_split",
    "dataset_test_split": "test_split",
    "val_size": "test_size",
    "val_set_size": "test_size",
    "max_samples": "did you mean 'split', such as split = \"train[:1000]\"?",
    "dataset_text_field": "text_field",
    "prompt_template": "prompt",
    "train_on_inputs": "train_on",
    "assistant_only_loss": "train_on",
    "completion_only_loss": "train_on",
    "mask_history": "train_on",
    "train_on_what": "train_on",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "sequence_len": "max_length",
    "cutoff_len": "max_length",
    "model_max_length": "max_length",
    "truncation": "too_long",
    "buffer_size": "shuffle_buffer",
    "shuffle_buffer_size": "shuffle_buffer",
    "dataset_prepared_path": _KEPT,
    "overwrite_cache": _KEPT,
    "dataset_num_proc": _WORKERS,
    "preprocessing_num_workers": _WORKERS,
    "dataloader_num_workers": _WORKERS,
    # how
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "n_epochs": "epochs",
    "total_epochs": "epochs",
    "train_steps": "max_steps",
    "num_steps": "max_steps",
    "total_training_steps": "max_steps",
    "per_device_train_batch_size": _PER_DEVICE,
    "per_gpu_train_batch_size": _PER_DEVICE,
    "micro_batch_size": _PER_DEVICE,
    "micro_batch_size_per_gpu": _PER_DEVICE,
    "gradient_accumulation_steps": _MICRO_BATCHES,
    "grad_accum_steps": _MICRO_BATCHES,
    "auto_find_batch_size": _MICRO_BATCHES,
    "micro_batch_tokens": _MICRO_BATCHES,
    "packing": _MICRO_BATCHES,
    "sample_packing": _MICRO_BATCHES,
    "train_batch_size": "batch_size",
    "global_batch_size": "batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "lr": "learning_rate",
    "lr_scheduler": "lr_schedule",
    "lr_scheduler_type": "lr_schedule",
    "warmup_steps": _SCHEDULE,
    "lr_warmup_steps": _SCHEDULE,
    "min_lr": "did you mean 'min_lr_ratio'? It is relative to the peak",
    "weight_decay": "adam.weight_decay",
    "adam_beta1": "adam.beta1",
    "adam_beta2": "adam.beta2",
    "adam_epsilon": "adam.eps",
    "max_grad_norm": "adam.grad_clip_norm",
    "grad_clip": "adam.grad_clip_norm",
    "gradient_clipping": "adam.grad_clip_norm",
    "optim": "the optimizer is AdamW; `adam` has its settings",
    "optimizer": "the optimizer is AdamW; `adam` has its settings",
    "data_seed": "seed",
    # when, and where to
    "eval_steps": "eval_every",
    "eval_strategy": "eval_every",
    "evaluation_strategy": "eval_every",
    "do_eval": "eval_every",
    "metric_for_best_model": "best_metric",
    "greater_is_better": "best_mode",
    "load_best_model_at_end": "did you mean 'best_metric'? The run's weights are then the best",
    "early_stopping": "early_stopping_patience",
    "max_new_tokens": "max_tokens",
    "save_steps": "save_every",
    "save_strategy": "save_every",
    "save_total_limit": "keep_checkpoints",
    "resume_from_checkpoint": "did you mean 'run_id'? The run of that id is continued",
    "run_name": "run_id",
    "experiment_name": "run_id",
    "output_dir": _RUNS,
    "default_local_dir": _RUNS,
    "log_path": _RUNS,
    "logging_dir": _METRICS,
    "logging_steps": f"every step is recorded; {_METRICS}",
    "report_to": _METRICS,
    # of the machine
    "device": _ADAPTER.format("device"),
    "use_cpu": _ADAPTER.format("device"),
    "bf16": _ADAPTER.format("dtype"),
    "fp16": _ADAPTER.format("dtype"),
    "dtype": _ADAPTER.format("dtype"),
    "torch_dtype": _ADAPTER.format("dtype"),
    "trust_remote_code": _ADAPTER.format("trust_remote_code"),
    "gradient_checkpointing": _ADAPTERS,
    "load_in_4bit": _ADAPTERS,
    "load_in_8bit": _ADAPTERS,
    "deepspeed": _ADAPTERS,
    "fsdp": _ADAPTERS,
}
"""Our key, or a hint, by the key of another trainer."""

PREFERENCE_NAMES: Mapping[str, str] = {
    **NAMES,
    "loss_type": "loss",
    "pref_loss": "loss",
    "pref_beta": "beta",
    "dpo_beta": "beta",
    "dpo_label_smoothing": "label_smoothing",
    "ref_model": _REFERENCE,
    "ref_model_name_or_path": _REFERENCE,
    "precompute_ref_log_probs": "the reference is always computed once, before the first step",
    "max_prompt_length": "max_length",
}
"""The same for preference learning."""

_CLIP = "did you mean 'clip_low_threshold' and 'clip_high_threshold'? They are ratios, 0.8 and 1.2"
_UPDATES = "did you mean 'num_substeps'? It is the updates made with the episodes of a step"

POLICY_NAMES: Mapping[str, str] = {
    **NAMES,
    "num_generations": "group_size",
    "rollout_n": "group_size",
    "groups_per_batch": "batch_size",
    "max_completion_length": "max_tokens",
    "max_response_length": "max_tokens",
    "max_prompt_length": "max_length",
    "reward_funcs": "reward",
    "reward_function": "reward",
    "environment_factory": "environment",
    "env": "environment",
    "scale_rewards": "normalize_by_std",
    "norm_adv_by_std_in_grpo": "normalize_by_std",
    "remove_constant_reward_groups": "drop_constant_groups",
    "loss_fn": "loss",
    "loss_type": "did you mean 'loss' or 'loss_reduction'? The second is how it is divided",
    "loss_agg_mode": "loss_reduction",
    "epsilon": _CLIP,
    "epsilon_high": _CLIP,
    "clip_ratio": _CLIP,
    "clip_ratio_low": _CLIP,
    "clip_ratio_high": _CLIP,
    "beta": "kl_penalty",
    "kl_coef": "kl_penalty",
    "kl_loss_coef": "kl_penalty",
    "kl_penalty_coef": "kl_penalty",
    "num_iterations": _UPDATES,
    "ppo_epochs": _UPDATES,
    "ppo_mini_batch_size": _UPDATES,
    "steps_per_generation": _UPDATES,
    "vllm_importance_sampling_cap": "importance_sampling_cap",
    "tis_imp_ratio_cap": "importance_sampling_cap",
    "max_steps_off_policy": "max_staleness",
}
"""The same for learning from rewards."""
