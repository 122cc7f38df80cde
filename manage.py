#!/usr/bin/env python
"""Django's command line."""

import os
import sys

from django.core.management import execute_from_command_line

from llmchat.lib.startup import settings_or_exit

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmchat.settings")
    settings_or_exit()
    execute_from_command_line(sys.argv)
