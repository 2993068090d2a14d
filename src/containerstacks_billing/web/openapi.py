"""Write the OpenAPI document that is committed: `python -m containerstacks_billing.web.openapi`."""

from __future__ import annotations

import json

from containerstacks_billing.settings import Settings
from containerstacks_billing.web.app import create_application


def document() -> str:
    """Return the document as it is committed. Needs no database."""
    app = create_application(Settings.model_validate({}), "dbname=none")
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(document(), end="")
