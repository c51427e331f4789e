// From the pickle's recorded calls to tensors. The calls understood are torch._utils._rebuild_tensor_v2 (storage,
// offset, shape, strides) and _rebuild_parameter around it; a storage is a persistent id ('storage', type, key, device,
// numel).
#include "tensor/torch_checkpoint.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "tensor/pickle.h"
#include "tensor/stored_types.h"
#include "tensor/zip.h"

namespace addp {
namespace {

using Kind = PickleValue::Kind;
constexpr int64_t kMaxPickleBytes = 1 << 28;
const std::string kLegacyStart = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46";

// A tensor as the pickle describes it; offset and strides in elements.
struct TensorView {
  std::string dtype, key;
  int64_t storage_numel = 0, offset = 0;
  Shape shape;
  std::vector<int64_t> strides;

  int64_t numel() const {
    int64_t n = 1;
    for (int64_t extent : shape) n *= extent;
    return n;
  }
  bool contiguous() const {
    int64_t expected = 1;
    for (size_t a = shape.size(); a-- > 0; expected *= shape[a])
      if (shape[a] != 1 && strides[a] != expected) return false;
    return true;
  }
};

std::string stored_dtype(const std::string& storage_type) {
  static const std::map<std::string, std::string> names = {
      {"torch FloatStorage", "F32"}, {"torch DoubleStorage", "F64"},    {"torch HalfStorage", "F16"},
      {"torch LongStorage", "I64"},  {"torch BFloat16Storage", "BF16"}, {"torch IntStorage", "I32"},
      {"torch ShortStorage", "I16"}, {"torch CharStorage", "I8"},       {"torch ByteStorage", "U8"},
      {"torch BoolStorage", "BOOL"}};
  const auto found = names.find(storage_type);
  return found == names.end() ? "" : found->second;
}

class TorchFile {
 public:
  explicit TorchFile(const std::string& path, const std::string& entry = "")
      : path_(path), file_(path, std::ios::binary) {
    need(file_.is_open(), "cannot be opened");
    std::string start(8, '\0');
    file_.read(start.data(), 8);
    file_.clear();
    file_.seekg(0);
    if (start == kLegacyStart) open_legacy();
    else open_zip();
    list_state_dict(entry);
  }

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  Tensor read(const std::string& name, const TensorView& view) {
    const int64_t size = stored_size(view.dtype);
    const auto storage = storages_.find(view.key);
    need(storage != storages_.end(), "the storage of ", quoted(name), " is missing");
    need(storage->second.size / size >= view.storage_numel, "the storage of ", quoted(name), " is too short");
    file_.clear();
    file_.seekg(storage->second.begin + view.offset * size);
    const Options options = {loaded_dtype(view.dtype), Device::cpu};
    Tensor x(view.shape, options);
    if (view.numel() == 0) return x;
    if (view.contiguous()) {
      read_elements(file_, view.dtype, x, path_, name);
      return x;
    }
    int64_t span = 1;
    for (size_t a = 0; a < view.shape.size(); ++a) span += (view.shape[a] - 1) * view.strides[a];
    Tensor stored({span}, options);
    read_elements(file_, view.dtype, stored, path_, name);
    gather(x, stored, view);
    return x;
  }

 private:
  template <class... Parts>
  void need(bool condition, const Parts&... parts) {
    check_as(ErrorKind::checkpoint, condition, path_, ": ", parts...);
  }

  void open_zip() {
    const std::map<std::string, ZipEntry> entries = read_zip_directory(file_, path_);
    std::string root;
    for (const auto& [name, entry] : entries)
      if (name == "data.pkl" || name.ends_with("/data.pkl")) root = name.substr(0, name.size() - 8);
    const auto pickle = entries.find(root + "data.pkl");
    need(pickle != entries.end(), "has no data.pkl: not a PyTorch checkpoint");
    need(pickle->second.size <= kMaxPickleBytes, "its data.pkl is too large");
    const auto order = entries.find(root + "byteorder");
    if (order != entries.end())
      need(text_of(order->second) == "little", "is stored big-endian, which is not supported");
    std::istringstream stream(text_of(pickle->second));
    pickle_ = unpickle(stream, path_);
    const std::string data = root + "data/";
    for (const auto& [name, entry] : entries)
      if (name.starts_with(data)) storages_[name.substr(data.size())] = entry;
  }

  // The old format: pickles of a magic number, the version, the system, the object and the storages' keys; then per key
  // the number of elements (8 bytes) and the elements.
  void open_legacy() {
    unpickle(file_, path_);
    unpickle(file_, path_);
    const Pickle system = unpickle(file_, path_);
    const int little = system.find(system.root, "little_endian");
    need(little >= 0 && system[little].integer == 1, "is stored big-endian, which is not supported");
    pickle_ = unpickle(file_, path_);
    const Pickle keys = unpickle(file_, path_);
    std::map<std::string, std::string> types;
    for (const PickleValue& value : pickle_.values)
      if (value.kind == Kind::persistent) {
        const auto [key, dtype, numel] = storage_of(value);
        if (!dtype.empty()) types[key] = dtype;
      }
    for (int item : keys[keys.root].items) {
      const std::string& key = keys[item].text;
      int64_t numel = -1;
      need(bool(file_.read(reinterpret_cast<char*>(&numel), 8)), "is truncated");
      need(types.contains(key), "the type of storage ", quoted(key), " is unknown");
      int64_t bytes = 0;
      need(numel >= 0 && !__builtin_mul_overflow(numel, stored_size(types[key]), &bytes),
           "a storage's size is damaged");
      const int64_t begin = file_.tellg();
      file_.seekg(0, std::ios::end);
      need(bytes <= static_cast<int64_t>(file_.tellg()) - begin, "is truncated");
      need(storages_.emplace(key, ZipEntry{begin, bytes}).second, "a storage occurs twice");
      file_.seekg(begin + bytes);
    }
  }

  std::string text_of(const ZipEntry& entry) {
    std::string text(static_cast<size_t>(entry.size), '\0');
    file_.clear();
    file_.seekg(entry.begin);
    need(bool(file_.read(text.data(), entry.size)), "cannot be read");
    return text;
  }

  // ---- The pickle ---------------------------------------------------------------------------------------------------

  void list_state_dict(const std::string& entry) {
    int state = entry.empty() ? -1 : pickle_.find(pickle_.root, entry);
    need(entry.empty() || state >= 0, "has no entry ", quoted(entry));
    for (const char* name : {"model", "state_dict"})
      if (state < 0) state = pickle_.find(pickle_.root, name);
    if (state < 0) state = pickle_.root;
    const std::vector<int>& items = pickle_[state].items;
    const Kind kind = pickle_[state].kind;
    need(kind == Kind::dict || kind == Kind::call, "its root is no state dict");
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      const PickleValue& key = pickle_[items[i]];
      TensorView view;
      if (key.kind != Kind::text || !to_view(items[i + 1], key.text, view)) continue;
      need(tensors_.emplace(key.text, std::move(view)).second, "the name ", quoted(key.text), " occurs twice");
    }
    need(!tensors_.empty(), "holds no tensors at its root, under 'model' or under 'state_dict'");
    const std::vector<int>& root = pickle_[pickle_.root].items;
    for (size_t i = 0; i + 1 < root.size(); i += 2) {
      const PickleValue &key = pickle_[root[i]], &value = pickle_[root[i + 1]];
      if (key.kind != Kind::text) continue;
      if (value.kind == Kind::text) metadata_[key.text] = value.text;
      if (value.kind == Kind::integer) metadata_[key.text] = std::to_string(value.integer);
      if (value.kind == Kind::real) metadata_[key.text] = concat_text(value.real);
    }
  }

  struct StorageId {
    std::string key, dtype;  // dtype is empty when the storage's type is unknown
    int64_t numel = 0;
  };
  StorageId storage_of(const PickleValue& persistent) {
    const std::vector<int>& id = pickle_[persistent.argument].items;
    need(id.size() >= 5 && pickle_[id[0]].text == "storage" && pickle_[id[2]].kind == Kind::text,
         "a storage's id is damaged");
    // The old format can name a part of another storage; torch.save has not written that since 0.4.
    need(id.size() == 5 || pickle_[id[5]].kind == Kind::none, "has views of storages, which are not supported");
    return {pickle_[id[2]].text, stored_dtype(pickle_[id[1]].text), pickle_[id[4]].integer};
  }

  std::vector<int64_t> integers(int tuple, const std::string& name) {
    std::vector<int64_t> list;
    for (int item : pickle_[tuple].items) {
      need(pickle_[item].kind == Kind::integer && pickle_[item].integer >= 0, quoted(name), " has a damaged shape");
      list.push_back(pickle_[item].integer);
    }
    return list;
  }

  // False when the value is no tensor.
  bool to_view(int index, const std::string& name, TensorView& view) {
    const PickleValue* value = &pickle_[index];
    for (int depth = 0; depth < 4; ++depth) {
      if (value->kind != Kind::call) return false;
      const std::string& callee = pickle_[value->callee].text;
      const std::vector<int>& arguments = pickle_[value->argument].items;
      if (callee == "torch._utils _rebuild_parameter" && !arguments.empty()) {
        value = &pickle_[arguments[0]];
        continue;
      }
      if (callee != "torch._utils _rebuild_tensor_v2") return false;
      need(arguments.size() >= 4 && pickle_[arguments[0]].kind == Kind::persistent, quoted(name), " is damaged");
      const auto [key, dtype, numel] = storage_of(pickle_[arguments[0]]);
      need(!dtype.empty(), quoted(name), " has an element type that is not supported");
      view.key = key;
      view.dtype = dtype;
      view.storage_numel = numel;
      view.offset = pickle_[arguments[1]].integer;
      for (int64_t extent : integers(arguments[2], name)) view.shape.push_back(extent);
      view.strides = integers(arguments[3], name);
      check_bounds(view, name);
      return true;
    }
    return false;
  }

  // Afterwards no product or sum over shape and strides can overflow, and every element lies inside the storage.
  void check_bounds(const TensorView& view, const std::string& name) {
    need(view.shape.size() == view.strides.size() && view.shape.size() <= 32, quoted(name), " has a damaged shape");
    int64_t numel = 1, last = view.offset;
    bool fits = view.offset >= 0 && view.storage_numel >= 0 && view.storage_numel < int64_t{1} << 56;
    for (size_t a = 0; a < view.shape.size(); ++a) {
      int64_t reach = 0;
      fits = fits && !__builtin_mul_overflow(numel, view.shape[a], &numel) &&
             !__builtin_mul_overflow(view.shape[a] - 1, view.strides[a], &reach) &&
             !__builtin_add_overflow(last, reach, &last);
    }
    // More elements than the storage has would be an expanded tensor, with which a small file could ask for any memory.
    if (numel != 0) fits = fits && last < view.storage_numel && numel <= view.storage_numel;
    need(fits, quoted(name), " ", view.shape, " reaches outside its storage of ", view.storage_numel, " elements");
  }

  static void gather(const Tensor& x, const Tensor& stored, const TensorView& view) {
    const int64_t size = dtype_size(x.dtype());
    std::vector<int64_t> index(view.shape.size(), 0);
    char* to = static_cast<char*>(x.raw());
    const char* from = static_cast<const char*>(stored.raw());
    int64_t place = 0;
    for (int64_t i = 0; i < x.numel(); ++i) {
      std::copy_n(from + place * size, size, to + i * size);
      for (size_t a = view.shape.size(); a-- > 0;) {
        place += view.strides[a];
        if (++index[a] < view.shape[a]) break;
        place -= view.strides[a] * view.shape[a];
        index[a] = 0;
      }
    }
  }

  const std::string path_;
  std::ifstream file_;
  Pickle pickle_;
  std::map<std::string, ZipEntry> storages_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace

bool is_torch_checkpoint(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string start(8, '\0');
  return file.read(start.data(), 8) && (start == kLegacyStart || start.starts_with("PK\3\4"));
}

SafetensorsHeader read_torch_header(const std::string& path) {
  const TorchFile file(path);
  SafetensorsHeader header;
  for (const auto& [name, view] : file.tensors()) {
    const int64_t size = stored_size(view.dtype), begin = view.offset * size;
    header.tensors.push_back({name, view.dtype, view.shape, begin, begin + view.numel() * size});
  }
  header.metadata = file.metadata();
  return header;
}

TensorFile read_torch_checkpoint(const std::string& path, const std::string& entry) {
  TorchFile file(path, entry);
  TensorFile result;
  for (const auto& [name, view] : file.tensors()) result.tensors.emplace(name, file.read(name, view));
  result.metadata = file.metadata();
  return result;
}

TensorFile read_weights(const std::string& path) {
  return is_torch_checkpoint(path) ? read_torch_checkpoint(path) : read_safetensors(path);
}

}  // namespace addp
