// PyTorch checkpoints (.pth, .pt, .ckpt): the zip format of torch.save and the older one before it. The pickle inside
// is interpreted by a small machine that knows dictionaries, numbers, strings and tensors; every other object becomes
// an opaque placeholder, so nothing out of the file is ever executed.
#pragma once
#include <string>
#include <vector>

#include "tensor/safetensors.h"

namespace addp {

// True when the file starts like a PyTorch checkpoint of either format.
bool is_torch_checkpoint(const std::string& path);

// The tensors of the state dict, which is the root's entry of the given name or, when that is empty, the entry "model" or
// "state_dict" or the root itself; strided and shared
// storages come out as separate contiguous tensors, element types as in read_safetensors. metadata: the root's numbers
// and strings ("epoch"). Throws Error(checkpoint) naming the file for anything malformed.
TensorFile read_torch_checkpoint(const std::string& path, const std::string& entry = "");

// The same without reading any data: names, stored types and shapes (begin and end: bytes in the tensor's storage).
SafetensorsHeader read_torch_header(const std::string& path);

// Either format, by the file's first bytes.
TensorFile read_weights(const std::string& path);

}  // namespace addp
