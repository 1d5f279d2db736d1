"""`python -m trimtab.local_model --port 9000`"""

from trimtab.local_model.server import main

main()
