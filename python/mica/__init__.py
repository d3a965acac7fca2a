"""Mica: machine learning on any machine.

Arrays and their functions are in mica.core: `import mica.core as mx`.
"""

from mica.core import __version__

__all__ = ["__version__"]
