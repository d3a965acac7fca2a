#include "nn/module.h"

namespace mica::nn {

void Visitor::parameter(const char* name, Array& array, const Shape& shape) {
  on_parameter(path_.empty() ? name : path_ + '.' + name, array, shape);
}

void Visitor::module(std::string_view name, Module& part) {
  size_t length = path_.size();
  if (!path_.empty() && !name.empty()) path_ += '.';
  path_ += name;
  part.visit(*this);
  path_.resize(length);
}

void Visitor::module(std::string_view name, Module& part, StackRow row) {
  if (!path_.empty()) row.name = path_ + '.' + row.name;
  stack_row_ = std::move(row);
  module(name, part);
  stack_row_.reset();
}

namespace {
class Counter : public Visitor {
 public:
  ParameterCount count;

  std::optional<Quantization> quantization(const std::optional<Quantization>& current) override {
    packed_ = current;
    return current;
  }

 protected:
  void on_parameter(const std::string& key, Array& array, const Shape&) override {
    if (!array.defined()) return;
    bool weight = packed_ && key.ends_with(".weight");
    bool group = packed_ && (key.ends_with(".scales") || key.ends_with(".biases"));
    if (weight)
      count.elements += array.size() * 32 / packed_->bits;
    else if (!group)
      count.elements += array.size();
    count.bytes += array.nbytes();
    if (key.ends_with(".biases")) packed_.reset();
  }

 private:
  std::optional<Quantization> packed_;
};
}  // namespace

ParameterCount count_parameters(Module& module) {
  Counter counter;
  counter.module("", module);
  return counter.count;
}

}  // namespace mica::nn
