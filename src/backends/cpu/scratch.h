// Scratch memory of a task: one buffer per thread, which grows to its largest use and stays. For
// what depends on block sizes and row lengths only.
//
//   Scratch scratch(Scratch::padded(keys) + Scratch::padded(rows));
//   float* scores = scratch.take(keys);
//   float* sums = scratch.take(rows);  // both valid until the thread's next Scratch
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace mica::cpu {

class Scratch {
 public:
  static constexpr int64_t kAlign = 16;  // floats: a cache line
  static int64_t padded(int64_t floats) { return (floats + kAlign - 1) / kAlign * kAlign; }

  // `floats`: the sum of the padded sizes that will be taken.
  explicit Scratch(int64_t floats) {
    Buffer& buffer = own();
    if (buffer.size < floats) {
      buffer.data.reset();
      buffer.size = 0;
      buffer.data.reset(static_cast<float*>(
          ::operator new(static_cast<size_t>(floats) * sizeof(float), std::align_val_t{64})));
      buffer.size = floats;
    }
    next_ = buffer.data.get();
  }

  float* take(int64_t floats) {
    float* result = next_;
    next_ += padded(floats);
    return result;
  }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  struct Buffer {
    std::unique_ptr<float, Free> data;
    int64_t size = 0;
  };
  static Buffer& own() {
    thread_local Buffer buffer;
    return buffer;
  }

  float* next_;
};

}  // namespace mica::cpu
