# SPDX-License-Identifier: Apache-2.0
"""The command that builds the site."""

import sys

from website.build import build
from website.pages import ROOT, PageError

try:
    print(f"built {build(ROOT / 'build') / 'index.html'}")
except PageError as error:
    sys.exit(str(error))
