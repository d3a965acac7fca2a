// Weights that are read again and again move into memory of the process, in huge pages, where
// reading is faster than from a mapped file, whose pages are mostly small. Until then they are used
// from the file, so that the first token is soon there and a short answer never pays for the copy.
#pragma once

#include <memory>
#include <vector>

#include "models/model.h"

namespace mica::models {

class Settler {
 public:
  // Of a loaded model; tables of which a token reads one row stay in the file.
  explicit Settler(Model& model);

  // To be called after each pass that read the weights: the first passes are left alone, each later
  // one moves a part, until the system has no memory to spare or all is moved that was in use then;
  // some rounds follow, ever later, for experts that have come into use. Arrays keep their
  // addresses, so others may use the model meanwhile.
  void after_pass();
  bool finished() const { return rounds_left_ == 0; }
  // What this settler moved.
  int64_t moved_bytes() const { return moved_; }

 private:
  class Census;
  struct Range {
    std::shared_ptr<Buffer> buffer;  // of a mapped file
    size_t begin, end;               // bytes of the file
  };

  std::vector<Range> ranges_;
  size_t next_ = 0, at_ = 0;  // of ranges_, and in it
  int rounds_left_ = 0;
  int64_t pause_, passes_left_;  // passes between rounds, and until the next part
  int64_t left_ = 0, moved_ = 0;
};

}  // namespace mica::models
