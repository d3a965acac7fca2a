// mica.core: the module itself. `import mica.core as mx`.
#include <cmath>
#include <limits>

#include "base/error.h"
#include "common.h"
#include "tree.h"

NB_MODULE(core, m) {
  namespace python = mica::python;
  namespace nb = nanobind;
  m.doc() = "Arrays, their functions and transforms, with MLX's names: `import mica.core as mx`.";
  nb::set_leak_warnings(false);  // the table's objects live as long as the process
  nb::register_exception_translator([](const std::exception_ptr& error, void*) {
    try {
      std::rethrow_exception(error);
    } catch (const mica::Error&) {
      python::set_error();
    }
  });
  m.attr("pi") = 3.141592653589793;
  m.attr("e") = 2.718281828459045;
  m.attr("euler_gamma") = 0.5772156649015329;
  m.attr("inf") = std::numeric_limits<double>::infinity();
  m.attr("nan") = std::nan("");
  m.attr("newaxis") = nb::none();
  m.attr("__version__") = MICA_VERSION;
  python::bind_dtypes(m);
  python::bind_devices(m);
  python::bind_array(m);
  python::bind_functions(m);
  python::bind_transforms(m);
  python::bind_compile(m);
  python::bind_custom_function(m);
  python::bind_evaluation(m);
  python::bind_profiler(m);
  nb::module_ random = nb::borrow<nb::module_>(m.attr("random"));
  python::bind_random_state(random);
}
