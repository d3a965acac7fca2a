// Between Python objects and arrays.
//
// mx.array(...) takes Python scalars (int32, int64 where needed, float32, bool), nested lists and
// tuples of them or of arrays, and whatever shows its memory through DLPack or the buffer protocol:
// NumPy arrays of any layout, memoryviews, other frameworks' tensors. float64 becomes float32
// unless a dtype is given, as in MLX. The result owns its memory.
#pragma once

#include <nanobind/ndarray.h>

#include <optional>

#include "common.h"
#include "ops/function.h"

namespace mica::python {

// ValueError "Invalid type str received in array initialization." for what no array is made of.
Array make_array(nb::handle object, std::optional<Dtype> dtype = {});

// Memory of another library: copied (true), shared (false; ValueError where a conversion is asked
// for), or shared where no conversion is needed. float64 is converted unless sharing is asked for.
Array from_memory(nb::handle object, std::optional<Dtype> dtype, std::optional<bool> copy);
// Does the object show its memory?
bool has_memory(nb::handle object);

// A number as a Value: bool, int, float, and NumPy's scalars; nullopt for anything else. ValueError
// for ints beyond 64 bits.
std::optional<Value> scalar_value(nb::handle object);

// An operand beside an array: scalars take its type weakly; NumPy's arrays take its type too,
// unless that would cut fractions. nullopt for what is no operand.
std::optional<Array> operand(nb::handle object, const Array& beside, Stream s = {});
// The same for an array that NumPy gave.
Array numpy_beside(Array array, std::optional<Dtype> beside);

// By value: another thread may give the handle another array while this one evaluates.
nb::object to_scalar(Array array);  // ValueError unless it has one element
nb::object to_list(Array array);

}  // namespace mica::python
