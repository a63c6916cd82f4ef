"""The flags that name an agent behind an endpoint."""

from absl import flags

URL = flags.DEFINE_string("agent_url", None, "Base URL of the agent's endpoint; short for --config.agent.url.")
MODEL = flags.DEFINE_string("agent_model", None, "Its model; short for --config.agent.model.")
API_KEY_ENV = flags.DEFINE_string(
    "agent_api_key_env", None, "Environment variable that holds its key; short for --config.agent.api_key_env."
)
