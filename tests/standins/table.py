"""The DynamoDB table of the tests."""

from typing import Any


def table_definition(name: str = "imageclust") -> dict[str, Any]:
    """Arguments of CreateTable: text ``pk`` (hash) and ``sk`` (range), on demand."""
    return {
        "TableName": name,
        "KeySchema": [
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        "BillingMode": "PAY_PER_REQUEST",
    }
