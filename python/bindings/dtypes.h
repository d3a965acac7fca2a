// mx.float32 and its like: one Python object per type.
#pragma once

#include "common.h"
#include "core/dtype.h"

namespace mica::python {

struct DtypeObject {
  Dtype value;
};

nb::object wrap(Dtype dtype);
const Dtype* dtype_of(nb::handle object);  // nullptr if it is something else
// TypeError naming `what` unless it is a Dtype; None gives nothing.
std::optional<Dtype> optional_dtype(nb::handle object, const char* what);

}  // namespace mica::python
