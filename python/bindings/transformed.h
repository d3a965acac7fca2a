// Transformed: the callable that a transform gives for a Python function. It keeps the function
// visible to Python's cycle collector, shows it as __wrapped__, and binds like a function when it
// stands in a class.
#pragma once

#include <memory>

#include "common.h"

namespace mica::python {

// What a transform does when it is called.
class Transform {
 public:
  virtual ~Transform() = default;
  virtual nb::object call(nb::handle function, nb::tuple args, nb::dict kwargs) = 0;
  // Python objects it holds besides the function.
  virtual int traverse(visitproc, void*) { return 0; }
  virtual void clear() {}
};

struct Transformed {
  nb::object function;
  std::unique_ptr<Transform> transform;
};

nb::object make_transformed(nb::object function, std::unique_ptr<Transform> transform);
// TypeError naming the transform unless it can be called.
void need_callable(nb::handle function, const char* transform);

// function(*args, **kwargs).
nb::object call_python(nb::handle function, nb::handle args, nb::handle kwargs);

}  // namespace mica::python
