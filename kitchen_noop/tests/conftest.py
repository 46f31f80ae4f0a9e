"""Make `import kitchen_noop` mean the package.

pytest's importlib mode names a test module after its folders. From the root of the repository
that is `kitchen_noop.tests.test_x`, for which it has just put this project's folder into
`sys.modules` as a package, in the place of the real one of that name.
"""

import importlib
import sys

if getattr(sys.modules.get("kitchen_noop"), "__file__", None) is None:
    sys.modules.pop("kitchen_noop", None)
    importlib.import_module("kitchen_noop")
