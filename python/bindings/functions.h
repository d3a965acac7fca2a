// Function: the callable that stands for one row of the Function table, as a function of a module
// and as a method of arrays.
//
// Arguments are bound from the row's parameters: positional-only, keyword-only, variadic, defaults,
// and `stream=`. Everything a call needs is prepared at import. A call whose arguments do not fit
// is a TypeError that names function and parameter.
#pragma once

#include "common.h"
#include "ops/function.h"

namespace mica::python {

// A Python object as a Value, by its own type: lists of arrays become Arrays, (nested) lists of
// ints a flat list of ints. TypeError for what no function takes.
Value to_value(nb::handle object);
// Lists are tuples if the function says that it returns a tuple.
nb::object from_value(Value value, bool as_tuple);

// The signature as Python shows it: "(a, /, axis=None, keepdims=False, *, stream=None)".
std::string text_signature(const Function& function);
// "a: array, /, axis: int | None = None, *, stream: StreamOrDevice = None", for type stubs.
std::string typed_parameters(const Function& function);

}  // namespace mica::python
