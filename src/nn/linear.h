// Linear and Embedding: a matrix with its storage, dense or quantized.
//
// Quantization is a property of the layer, not another layer: `weight` is then packed into uint32
// rows with `scales` and `biases` beside it, and products read it as stored. Weights may be
// float32, float16 or bfloat16, whatever the activations are; results have the activations' dtype.
#pragma once

#include "nn/module.h"

namespace mica::nn {

// The matrix that Linear and Embedding hold: [rows, columns].
class Matrix {
 public:
  Matrix(int64_t rows, int64_t columns) : rows_(rows), columns_(columns) {}
  void visit(Visitor& visitor);

  // x_NI · matrixᵀ, in the dtype of x.
  Array times(const Array& x) const;
  // Rows at the ids, shape ids + [columns], in `dtype`.
  Array rows(const Array& ids, Dtype dtype) const;
  int64_t row_count() const { return rows_; }
  const std::optional<Quantization>& quantization() const { return quantization_; }
  Dtype stored_dtype() const { return quantization_ ? scales_.dtype() : weight_.dtype(); }
  const Array& weight() const { return weight_; }
  const Array& scales() const { return scales_; }
  const Array& biases() const { return biases_; }

 private:
  int64_t rows_, columns_;
  Array weight_, scales_, biases_;
  std::optional<Quantization> quantization_;
};

// y = x · Wᵀ + b, W [outputs, inputs]. With `transposed` the checkpoint stores W as [inputs,
// outputs] (GPT-2's Conv1D).
class Linear : public Module {
 public:
  Linear(int64_t inputs, int64_t outputs, bool bias = false, bool transposed = false);
  void visit(Visitor& visitor) override;
  Array operator()(const Array& x) const;
  const Matrix& matrix() const { return matrix_; }
  // What several layers give for the same x, bit for bit; matrices that are quantized alike are
  // read in one loop.
  static Arrays together(const Array& x, std::initializer_list<const Linear*> layers);

 private:
  Array finished(const Array& product, const Array& x) const;

  int64_t inputs_, outputs_;
  bool has_bias_, transposed_;
  Matrix matrix_;
  Array dense_;  // the transposed storage
  Array bias_;
};

// Rows of a table by id; also the output head where embeddings are tied.
class Embedding : public Module {
 public:
  Embedding(int64_t count, int64_t dims) : matrix_(count, dims) {}
  void visit(Visitor& visitor) override { matrix_.visit(visitor); }
  // ids: integers of any shape, 0 … count-1 (IndexError at evaluation otherwise).
  Array operator()(const Array& ids, Dtype dtype) const { return matrix_.rows(ids, dtype); }
  Array as_linear(const Array& x) const { return matrix_.times(x); }
  Dtype stored_dtype() const { return matrix_.stored_dtype(); }

 private:
  Matrix matrix_;
};

}  // namespace mica::nn
