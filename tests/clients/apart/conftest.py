"""The libraries here talk to a sidecar and to nobody else."""

import os

os.environ.update(
    HAYSTACK_TELEMETRY_ENABLED="False",
    LANGSMITH_TRACING="false",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
)
