// Reference files and the report of errors.
#include "examples/parity.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iomanip>
#include <limits>
#include <ostream>
#include <sstream>

#include "autograd/ops.h"
#include "tensor/stored_types.h"

namespace addp::parity {
namespace {

constexpr double kVanishing = 1e-12;  // float64 gradients this much below the others are rounding errors of 0
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Shape without_ones(const Shape& shape) {
  Shape result;
  std::copy_if(shape.begin(), shape.end(), std::back_inserter(result), [](int64_t extent) { return extent != 1; });
  return result;
}

std::vector<int64_t> integer_list(const std::string& text, const std::string& where) {
  std::vector<int64_t> list;
  std::istringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) {
    try {
      list.push_back(std::stoll(item));
    } catch (const std::exception&) {
      fail(ErrorKind::data, where, ": expected integers separated by commas, found ", quoted(text));
    }
  }
  return list;
}

}  // namespace

// ---- Golden
// -----------------------------------------------------------------------------------------------------------

const TensorFile& Golden::file(const std::string& name) {
  const auto known = files_.find(name);
  if (known != files_.end()) return known->second;
  std::error_code ignored;
  check_as(ErrorKind::data, std::filesystem::exists(path(name), ignored), path(name),
           ": no such file; parity needs a folder with the files of tests/golden");
  return files_[name] = read_safetensors(path(name));
}

const Tensor& Golden::find(const std::string& file, const std::string& name) {
  const auto& tensors = this->file(file).tensors;
  const auto found = tensors.find(name);
  check_as(ErrorKind::data, found != tensors.end(), path(file), ": has no tensor ", quoted(name));
  covered_.insert({file, name});
  return found->second;
}

Tensor Golden::input(const std::string& file, const std::string& name, Options options) {
  const Tensor& x = find(file, name);
  return x.dtype() == DType::i64 ? to(x, {DType::i64, options.device}) : to(x, options);
}

Tensor Golden::expected(const std::string& file, const std::string& name) { return find(file, name); }

std::vector<std::string> Golden::names_after(const std::string& file, const std::string& prefix) {
  std::vector<std::string> names;
  for (const auto& [name, x] : this->file(file).tensors)
    if (name.starts_with(prefix)) names.push_back(name.substr(prefix.size()));
  return names;
}

std::vector<std::string> Golden::uncovered() const {
  std::vector<std::string> list;
  for (const auto& [file, content] : files_)
    if (file.ends_with("_expected"))
      for (const auto& [name, x] : content.tensors)
        if (!covered_.contains({file, name})) list.push_back(file + " " + name);
  return list;
}

std::string Golden::text(const std::string& file, const std::string& key) {
  const auto& metadata = this->file(file).metadata;
  const auto found = metadata.find(key);
  check_as(ErrorKind::data, found != metadata.end(), path(file), ": its metadata has no ", quoted(key));
  return found->second;
}

int64_t Golden::integer(const std::string& file, const std::string& key) {
  const std::vector<int64_t> list = integer_list(text(file, key), file + ": " + key);
  check_as(ErrorKind::data, list.size() == 1, file, ": ", key, ": expected one integer");
  return list[0];
}

double Golden::number_after(const std::string& file, const std::string& key, const std::string& word) {
  const std::string value = text(file, key);
  const size_t place = value.find(word);
  const char* begin = place == std::string::npos ? "" : value.c_str() + place + word.size();
  char* end = nullptr;
  const double number = std::strtod(begin, &end);
  check_as(ErrorKind::data, end != begin, file, ": ", key, ": expected a number after '", word, "' in ", quoted(value));
  return number;
}

Config Golden::config(const std::string& weights) {
  Config c;
  c.preset = "parity";
  c.image_size = integer(weights, "img_size");
  c.patch_size = integer(weights, "patch_size");
  c.vqgan.ch = integer(weights, "vqgan_ch");
  c.vqgan.ch_mult = integer_list(text(weights, "vqgan_ch_mult"), weights + ": vqgan_ch_mult");
  c.vqgan.num_res_blocks = integer(weights, "vqgan_num_res_blocks");
  c.vqgan.codebook_size = integer(weights, "codebook_size");
  c.vqgan.codebook_dim = integer(weights, "codebook_dim");
  c.vqgan.legacy_beta = true;
  c.vocabulary = integer(weights, "vocab_size");
  c.class_id = integer(weights, "fake_class_label");
  c.mask_id = integer(weights, "mask_token_label");
  const std::string positions = "token_emb.position_embeddings.weight";
  c.position_rows = has(weights, positions) ? find(weights, positions).dim(0) : 1 + c.tokens();
  c.unused_parameters = true;
  c.model.width = integer(weights, "embed_dim");
  c.model.depth = integer(weights, "depth");
  c.model.heads = integer(weights, "num_heads");
  c.model.decoder_depth = integer(weights, "decoder_depth");
  c.model.decoder_heads =
      has_text(weights, "decoder_num_heads") ? integer(weights, "decoder_num_heads") : c.model.heads;
  const std::string hidden = "blocks.0.mlp.fc1.bias";
  if (has(weights, hidden))
    c.model.mlp_ratio = static_cast<double>(find(weights, hidden).numel()) / static_cast<double>(c.model.width);
  c.predictor = c.model;
  c.objective.label_smoothing = number_after(weights, "label_smoothing", "");
  return c;
}

// ---- Report
// -----------------------------------------------------------------------------------------------------------

bool Report::Entry::passed() const {
  const double f64_limit = exact ? 0 : kToleranceF64, f32_limit = exact ? 0 : kToleranceF32;
  return error[0] <= f64_limit && error[1] <= f32_limit;
}

void Report::add(const std::string& file, const std::string& name, bool exact, double error) {
  const auto [place, is_new] = index_.try_emplace({file, name}, entries_.size());
  if (is_new) entries_.push_back({file, name, exact, {-1, -1}});
  double& slot = entries_[place->second].error[precision_ == DType::f64 ? 0 : 1];
  slot = std::max(slot, error);
}

void Report::compare(const std::string& file, const std::string& name, const Tensor& actual) {
  compare(file, name, actual, golden_.expected(file, name));
}

void Report::compare_rows(const std::string& file, const std::string& name, const Tensor& actual, const Tensor& rows) {
  compare(file, name, actual, gather_tokens(Var(golden_.expected(file, name)), rows).value());
}

void Report::compare(const std::string& file, const std::string& name, const Tensor& actual, const Tensor& reference) {
  if (without_ones(reference.shape()) != without_ones(actual.shape())) return add(file, name, false, kInfinity);
  const std::vector<double> a = to_vector<double>(actual), b = to_vector<double>(reference);
  double largest = 0, difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return add(file, name, false, kInfinity);
    largest = std::max(largest, std::abs(b[i]));
    difference = std::max(difference, std::abs(a[i] - b[i]));
  }
  if (name.starts_with("grad.") && largest < kVanishing * largest_gradient(file)) largest = largest_gradient(file);
  add(file, name, false, largest > 0 ? difference / largest : difference);
}

double Report::largest_gradient(const std::string& file) {
  const auto [place, is_new] = largest_gradient_.try_emplace(file, 0);
  if (is_new)
    for (const auto& [name, x] : golden_.file(file).tensors)
      if (name.starts_with("grad."))
        for (double value : to_vector<double>(x)) place->second = std::max(place->second, std::abs(value));
  return place->second;
}

void Report::compare_exactly(const std::string& file, const std::string& name, const Tensor& actual) {
  const Tensor reference = golden_.expected(file, name);
  if (without_ones(reference.shape()) != without_ones(actual.shape())) return add(file, name, true, kInfinity);
  const std::vector<double> a = to_vector<double>(actual), b = to_vector<double>(reference);
  int64_t different = 0;
  for (size_t i = 0; i < a.size(); ++i) different += a[i] == b[i] ? 0 : 1;
  add(file, name, true, static_cast<double>(different));
}

void Report::compare_gradients(const std::string& file, const std::vector<NamedVar>& parameters,
                               const std::string& prefix) {
  for (const NamedVar& p : parameters) {
    const std::string name = "grad." + prefix + p.name;
    if (!golden_.has(file, name)) continue;
    compare(file, name, p.var.grad().defined() ? p.var.grad() : zeros_like(p.var.value()));
  }
}

bool Report::print() {
  size_t width = 0;
  for (const Entry& e : entries_) width = std::max(width, e.file.size() + e.name.size() + 1);
  bool passed = true;
  const Entry* worst[2] = {nullptr, nullptr};
  for (const Entry& e : entries_) {
    out_ << std::left << std::setw(static_cast<int>(width)) << e.file + " " + e.name << std::right;
    for (int i = 0; i < 2; ++i) {
      out_ << (i == 0 ? "  f64 " : "  f32 ");
      std::ostringstream text;
      if (e.exact) text << (e.error[i] == 0 ? "equal" : concat_text(e.error[i], " differ"));
      else text << std::scientific << std::setprecision(1) << e.error[i];
      out_ << std::setw(8) << text.str();
      if (worst[i] == nullptr || e.error[i] > worst[i]->error[i]) worst[i] = &e;
    }
    out_ << (e.passed() ? "\n" : "  FAILED\n");
    passed = passed && e.passed();
  }
  for (const std::string& name : golden_.uncovered()) out_ << name << "  not compared\n";
  for (const std::string& text : notes_) out_ << "note: " << text << "\n";
  check_as(ErrorKind::data, !entries_.empty(), "parity: nothing to compare");
  out_ << std::scientific << std::setprecision(1) << "parity: " << entries_.size() << " tensors";
  for (int i = 0; i < 2; ++i)
    out_ << (i == 0 ? ", worst f64 " : ", worst f32 ") << worst[i]->error[i] << " (" << worst[i]->file << " "
         << worst[i]->name << ")";
  out_ << std::defaultfloat << std::endl;
  return passed;
}

}  // namespace addp::parity
