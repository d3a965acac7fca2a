// StopText: streams text up to the first stop string, which may span any number of pieces.
//
//   StopText stop({"\n\n"});
//   out += stop.add("one\n");   // "one": the newline may begin a stop string
//   out += stop.add("\ntwo");   // "": found, stop.found() is true
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mica::generate {

class StopText {
 public:
  explicit StopText(std::vector<std::string> stops);
  // Text that is certainly not part of a stop string; nothing after one was found.
  std::string add(std::string_view piece);
  // What was held back when the text ends without a stop string.
  std::string finish();
  bool found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;  // may begin a stop string
  bool found_ = false;
};

}  // namespace mica::generate
